"""What services declare, gathered: who sends and receives which messages on which channels (pure)."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, Union, get_args, get_origin

from eventkit.adapter import Address, Group
from eventkit.asyncapi.errors import DocumentError
from eventkit.declaring import Handler
from eventkit.errors import DeclarationError
from eventkit.messages import Command, Event, declared, nearest, routing
from eventkit.service import Router, Service

MessageClass: TypeAlias = type[Event | Command[Any]]


@dataclass(frozen=True, slots=True)
class Operation:
    """What one handler receives from one channel, or sends to it."""

    service: str
    handler: Handler | None
    """None: said by `Service(publishes=...)`."""
    sends: bool
    address: Address
    classes: tuple[MessageClass, ...]
    """Empty: whatever is on the channel."""
    group: Group | None = None
    """Whose copy it is, when it receives."""

    @property
    def commands(self) -> bool:
        return self.address.kind == "inbox"

    @property
    def name(self) -> str:
        """The handler's own name, without what it is declared in."""
        return "" if self.handler is None else self.handler.name.rpartition(".")[2]


@dataclass(slots=True)
class Declarations:
    """All that some services declare."""

    services: list[Service]
    operations: list[Operation] = field(default_factory=list)
    messages: dict[tuple[Address, str], MessageClass] = field(default_factory=dict)
    """By channel and wire name. Where services have classes of their own for one message, the sender's counts."""

    @property
    def addresses(self) -> list[Address]:
        return sorted({operation.address for operation in self.operations}, key=_order)

    def on(self, address: Address) -> list[MessageClass]:
        """The messages of a channel, by their wire names."""
        return [cls for (where, _), cls in sorted(self.messages.items(), key=_by_type) if where == address]


def gather(services: Sequence[object]) -> Declarations:
    """What these services declare. DocumentError for anything that is no service."""
    found = Declarations([_service(item) for item in services])
    if not found.services:
        raise DocumentError("there is no service to describe: give at least one")
    names = [service.name for service in found.services]
    for name in sorted(set(names)):
        if names.count(name) > 1:
            raise DocumentError(f"two different services are called {name!r}: a document describes each name once")
    found.services.sort(key=lambda service: service.name)
    for service in found.services:
        found.operations.extend(_received(service))
        found.operations.extend(_sent(service))
    senders_first = sorted(found.operations, key=lambda operation: not _owns(operation))
    for operation in senders_first:
        for cls in operation.classes or _all_declared(operation):
            found.messages.setdefault((operation.address, routing(cls).type), cls)
    return found


def _service(item: object) -> Service:
    if isinstance(item, Service):
        return item
    if isinstance(item, Router):
        raise DocumentError("a Router cannot be described alone: include it in a Service, and give that")
    shown = item.__name__ if isinstance(item, type) else type(item).__name__
    raise DocumentError(f"{shown} is no Service: give Service objects, such as the `service` of a module")


def _owns(operation: Operation) -> bool:
    """Events belong to who sends them, commands to who receives them."""
    return operation.sends != operation.commands


def _received(service: Service) -> Iterator[Operation]:
    for group, handlers in service.groups().values():
        for handler in handlers:
            topic = handler.topic
            if topic is not None:
                yield Operation(service.name, handler, False, Address("topic", topic.name, topic.physical), (), group)
                continue
            for address, classes in _by_address(handler.parameters.accepts).items():
                yield Operation(service.name, handler, False, address, classes, group)


def _sent(service: Service) -> Iterator[Operation]:
    for handler in service.handlers:
        for address, classes in _by_address(_returned(handler)).items():
            yield Operation(service.name, handler, True, address, classes)
    for address, classes in _by_address(service.publishes).items():
        yield Operation(service.name, None, True, address, classes)


def _returned(handler: Handler) -> Sequence[MessageClass]:
    """The messages that a handler returns, as far as its annotation says. What answers a command is none."""
    hint = handler.parameters.returns
    if hint is inspect.Signature.empty:
        return ()
    if handler.commands and routing(handler.parameters.accepts[0]).reply is not None:
        return ()
    return tuple(dict.fromkeys(_messages_in(hint)))


def _messages_in(hint: object) -> Iterator[MessageClass]:
    if isinstance(hint, type) and issubclass(hint, Event | Command):
        try:
            routing(hint)
        except DeclarationError:
            return  # a base for others: which of them goes out, the annotation does not say
        yield hint
        return
    origin = get_origin(hint)
    if origin is typing.Annotated:
        yield from _messages_in(get_args(hint)[0])
    elif origin in (Union, types.UnionType, list, tuple):
        for member in get_args(hint):
            yield from _messages_in(member)


def _by_address(classes: Sequence[MessageClass]) -> dict[Address, tuple[MessageClass, ...]]:
    found: dict[Address, list[MessageClass]] = {}
    for cls in classes:
        found.setdefault(routing(cls).address, []).append(cls)
    return {address: tuple(members) for address, members in found.items()}


def _all_declared(operation: Operation) -> Iterator[MessageClass]:
    """What a handler of all of a topic would get: every event class of this process that goes there.

    Classes that only others are derived from are left out.
    """
    near = "" if operation.handler is None else getattr(operation.handler.function, "__module__", "")
    for _, classes in sorted(declared(operation.address.name).items()):
        ends = [
            cls
            for cls in classes
            if _goes_to(cls, operation.address)
            and not any(_goes_to(one, operation.address) for one in cls.__subclasses__())
        ]
        found = nearest(ends, near)
        if found is not None:
            yield found


def _goes_to(cls: type[Event], address: Address) -> bool:
    try:
        return routing(cls).address == address
    except DeclarationError:
        return False


def _order(address: Address) -> tuple[str, str, str]:
    return address.name, address.kind, address.physical or ""


def _by_type(item: tuple[tuple[Address, str], MessageClass]) -> tuple[str, tuple[str, str, str]]:
    (address, name), _ = item
    return name, _order(address)
