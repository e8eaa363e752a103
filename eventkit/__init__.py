"""Events and commands, written once; the broker is a setting."""

from eventkit.adapter import Delivery, Message, Provision
from eventkit.bus import Bus, connect
from eventkit.context import Context
from eventkit.errors import (
    AdapterNotFound,
    BrokerUnavailable,
    CapabilityNotSupported,
    Closed,
    CommandFailed,
    CommandRejected,
    DeclarationError,
    EventkitError,
    Failure,
    GiveUp,
    InvalidMessage,
    MessageTooLarge,
    NoOwner,
    NotProvisioned,
    PublishError,
    Reject,
    RequestError,
    RequestTimeout,
    SettingsError,
    UndecodableMessage,
    UnknownMessage,
)
from eventkit.messages import Command, Event, Topic, Undeclared
from eventkit.parameters import Depends
from eventkit.retry import Retry
from eventkit.running import Health, Running
from eventkit.service import CallNext, Middleware, Router, Service
from eventkit.wire import Serializer

__all__ = [
    "AdapterNotFound",
    "BrokerUnavailable",
    "Bus",
    "CallNext",
    "CapabilityNotSupported",
    "Closed",
    "Command",
    "CommandFailed",
    "CommandRejected",
    "Context",
    "DeclarationError",
    "Delivery",
    "Depends",
    "Event",
    "EventkitError",
    "Failure",
    "GiveUp",
    "Health",
    "InvalidMessage",
    "Message",
    "MessageTooLarge",
    "Middleware",
    "NoOwner",
    "NotProvisioned",
    "Provision",
    "PublishError",
    "Reject",
    "RequestError",
    "RequestTimeout",
    "Retry",
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
