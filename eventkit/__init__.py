"""Events and commands, written once; the broker is a setting."""

from eventkit.adapter import Delivery, Message, Provision
from eventkit.batches import Batch
from eventkit.bus import Bus
from eventkit.circuit import Circuit
from eventkit.connecting import connect
from eventkit.context import Context, Outgoing
from eventkit.copies import Reason
from eventkit.dead_letters import DeadLetters
from eventkit.errors import (
    AdapterNotFound,
    BrokerUnavailable,
    CapabilityNotSupported,
    Closed,
    CommandFailed,
    CommandRejected,
    DeadLetterError,
    DeclarationError,
    EventkitError,
    Failure,
    GiveUp,
    GroupInUse,
    InvalidMessage,
    LetterFailure,
    MessageTooLarge,
    NoDeadLetter,
    NoOwner,
    NotProvisioned,
    NotReplicated,
    PartialFailure,
    ProcessDied,
    PublishError,
    Reject,
    RequestError,
    RequestTimeout,
    RetriedTooOften,
    RetryLater,
    SettingsError,
    UndecodableMessage,
    UnknownMessage,
)
from eventkit.health import Health
from eventkit.letter import DeadLetter
from eventkit.log_fields import LogFields
from eventkit.messages import Command, Event, Topic, Undeclared
from eventkit.parameters import Depends
from eventkit.retry import Retry
from eventkit.running import Running
from eventkit.service import CallNext, Middleware, OutgoingMiddleware, Router, Service
from eventkit.wire import JSON_SERIALIZER, Serializer

__all__ = [
    "JSON_SERIALIZER",
    "AdapterNotFound",
    "Batch",
    "BrokerUnavailable",
    "Bus",
    "CallNext",
    "CapabilityNotSupported",
    "Circuit",
    "Closed",
    "Command",
    "CommandFailed",
    "CommandRejected",
    "Context",
    "DeadLetter",
    "DeadLetterError",
    "DeadLetters",
    "DeclarationError",
    "Delivery",
    "Depends",
    "Event",
    "EventkitError",
    "Failure",
    "GiveUp",
    "GroupInUse",
    "Health",
    "InvalidMessage",
    "LetterFailure",
    "LogFields",
    "Message",
    "MessageTooLarge",
    "Middleware",
    "NoDeadLetter",
    "NoOwner",
    "NotProvisioned",
    "NotReplicated",
    "Outgoing",
    "OutgoingMiddleware",
    "PartialFailure",
    "ProcessDied",
    "Provision",
    "PublishError",
    "Reason",
    "Reject",
    "RequestError",
    "RequestTimeout",
    "RetriedTooOften",
    "Retry",
    "RetryLater",
    "Router",
    "Running",
    "Serializer",
    "Service",
    "SettingsError",
    "Topic",
    "Undeclared",
    "UndecodableMessage",
    "UnknownMessage",
    "connect",
]
