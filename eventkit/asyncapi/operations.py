"""The operations of a document: what each handler receives and sends, with replies, retries and dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from eventkit.adapter import Address
from eventkit.asyncapi.bindings import OWN, Bindings
from eventkit.asyncapi.declared import Declarations, MessageClass, Operation
from eventkit.asyncapi.envelope import Kind
from eventkit.asyncapi.keys import Keys, legal
from eventkit.asyncapi.texts import described
from eventkit.messages import routing
from eventkit.names import Naming
from eventkit.retry import Retry
from eventkit.service import Service

DONE = "eventkit.done"
REJECTED = "eventkit.rejected"
FAILED = "eventkit.failed"


class Where:
    """By which keys the parts of a document are found."""

    def __init__(self, declarations: Declarations, channels: Keys, messages: Keys) -> None:
        self._channels: dict[Address, str] = {}
        for address in declarations.addresses:
            name = address.name if address.kind == "topic" else f"{address.name}.{address.kind}"
            self._channels[address] = channels.unique(name, address.physical or name)
        types = Counter(legal(type_) for _, type_ in declarations.messages)
        self._messages: dict[tuple[Address, str], str] = {}
        for address, type_ in sorted(declarations.messages, key=lambda item: (item[1], self._channels[item[0]])):
            plain, full = legal(type_), f"{self._channels[address]}.{legal(type_)}"
            wishes = (plain, full) if types[plain] == 1 else (full,)
            self._messages[address, type_] = messages.unique(*wishes)
        self._replies = {
            found: messages.unique(f"{key}.reply") for found, key in self._messages.items() if found[0].kind == "inbox"
        }

    def channel(self, address: Address) -> str:
        return self._channels[address]

    def component(self, address: Address, cls: MessageClass) -> str:
        """The key of a message in `components.messages`."""
        return self._messages[address, routing(cls).type]

    def message(self, address: Address, cls: MessageClass) -> str:
        """Its key in the channel: the same."""
        return self.component(address, cls)

    def reply(self, address: Address, cls: MessageClass) -> str:
        """The key of the answer to a command."""
        return DONE if routing(cls).reply is None else self._replies[address, routing(cls).type]


def answers(declarations: Declarations, keys: Where) -> dict[str, dict[str, MessageClass | None]]:
    """The replies of each service, by key, with the command that each answers; None: it may answer any."""
    found: dict[str, dict[str, MessageClass | None]] = {}
    for operation in declarations.operations:
        if operation.sends or not operation.commands:
            continue
        mine = found.setdefault(operation.service, {REJECTED: None, FAILED: None})
        for cls in operation.classes:
            mine[keys.reply(operation.address, cls)] = None if routing(cls).reply is None else cls
    return found


def write(declarations: Declarations, keys: Where, bindings: Bindings, naming: Naming) -> dict[str, Any]:
    """All operations, by key."""
    services = {service.name: service for service in declarations.services}
    names = Keys()
    found: dict[str, Any] = {}
    for operation in declarations.operations:
        name = operation.name or "publishes"
        base = f"{operation.service}.{name}"
        channel = keys.channel(operation.address)
        wishes = (f"{base}.to.{channel}",) if operation.sends else (base, f"{base}.from.{channel}")
        key = names.unique(*wishes)
        found[key] = _Writer(services[operation.service], keys, bindings, naming).write(operation)
    return found


def traits(declarations: Declarations) -> dict[str, Any]:
    """What all operations on events, and all on commands, have in common."""
    kinds = {_kind(operation) for operation in declarations.operations}
    return {kind: {"tags": [{"name": kind}], "description": _ABOUT[kind]} for kind in sorted(kinds)}


_ABOUT: Mapping[str, str] = {
    "event": "A fact. Any number of services react, including none.",
    "command": "A request to act. One service owns it, may reject it, and answers who asked.",
}


def _kind(operation: Operation) -> Kind:
    return "command" if operation.commands else "event"


class _Writer:
    def __init__(self, service: Service, keys: Where, bindings: Bindings, naming: Naming) -> None:
        self._service = service
        self._keys = keys
        self._bindings = bindings
        self._naming = naming

    def write(self, operation: Operation) -> dict[str, Any]:
        channel = self._keys.channel(operation.address)
        kind = _kind(operation)
        found: dict[str, Any] = {
            "action": "send" if operation.sends else "receive",
            "channel": {"$ref": f"#/channels/{channel}"},
            "title": operation.name or f"{operation.service} publishes",
            "tags": [{"name": operation.service}, {"name": kind}],
            "traits": [{"$ref": f"#/components/operationTraits/{kind}"}],
            OWN: {"service": operation.service, **self._policy(operation)},
        }
        if operation.handler is not None:
            found.update(described(operation.handler.function.__doc__) if not operation.sends else {})
            found[OWN]["handler"] = operation.name
        if operation.classes:  # else: all that is on the channel
            found["messages"] = sorted(
                (self._in(channel, self._keys.message(operation.address, cls)) for cls in operation.classes),
                key=lambda reference: reference["$ref"],
            )
        if operation.commands and not operation.sends:
            found["reply"] = self._reply(operation)
        bound = self._bindings.receive(operation.group) if operation.group else self._bindings.send(kind)
        if bound:
            found["bindings"] = bound
        return found

    def _policy(self, operation: Operation) -> dict[str, Any]:
        if operation.group is None or operation.handler is None:
            return {}
        group = operation.group
        retry = operation.handler.retry or self._service.retry
        timeout = operation.handler.timeout or self._service.timeout
        found: dict[str, Any] = {
            "group": group.name,
            "start": group.start,
            "retry": _retry(retry) | ({} if retry.in_order else {"address": self._naming.channel(*group.retry)}),
            "deadLetters": {"address": self._naming.channel(*group.dead)},
        }
        if timeout is not None:
            found["timeout"] = _seconds(timeout)
        batch = operation.handler.batch
        if batch is not None:
            found["batch"] = {"size": batch.size, "wait": _seconds(batch.wait)}
        return found

    def _reply(self, operation: Operation) -> dict[str, Any]:
        channel = f"{operation.service}.reply"
        answers_ = {self._keys.reply(operation.address, cls) for cls in operation.classes} | {REJECTED, FAILED}
        return {
            "address": {
                "description": "Only requests have it: without, nothing is answered.",
                "location": "$message.header#/reply_to",
            },
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [self._in(channel, key) for key in sorted(answers_)],
        }

    @staticmethod
    def _in(channel: str, message: str) -> dict[str, str]:
        return {"$ref": f"#/channels/{channel}/messages/{message}"}


def _retry(retry: Retry) -> dict[str, Any]:
    """Delays in seconds."""
    return {
        "attempts": retry.attempts,
        "firstDelay": _seconds(retry.first_delay),
        "factor": _plain(retry.factor),
        "maxDelay": _seconds(retry.max_delay),
        "inOrder": retry.in_order,
        "never": sorted(f"{error.__module__}.{error.__qualname__}" for error in retry.never),
    }


def _seconds(duration: timedelta) -> float:
    return _plain(duration.total_seconds())


def _plain(number: float) -> float:
    """1 rather than 1.0: what reads and writes the document again would make it so."""
    return int(number) if float(number).is_integer() else number
