"""Handling: which handler takes a message, and one call of it with all that it runs in."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from types import MappingProxyType
from typing import Any

from eventkit.adapter import Address, Delivery, Message
from eventkit.context import Context, Outgoing
from eventkit.declaring import Handler
from eventkit.headers import CONTENT_TYPE, VERSION
from eventkit.messages import Command, Event, Topic, Undeclared, declared, nearest, routing
from eventkit.retry import Retry
from eventkit.service import Service
from eventkit.threads import Threads
from eventkit.wire import JSON, JSON_SERIALIZER, Serializer, decode, version


class Entry:
    """A handler for one message class, ready to be called."""

    __slots__ = (
        "_any",
        "address",
        "batch",
        "circuit",
        "cls",
        "commands",
        "handler",
        "name",
        "once",
        "plain",
        "reply",
        "retry",
        "serializer",
        "short",
        "surroundings",
        "timeout",
        "validate",
        "version",
    )

    def __init__(
        self,
        handler: Handler,
        cls: type[Event | Command[Any]],
        service: Service,
        serializer: Serializer,
        surroundings: Surroundings,
    ) -> None:
        self._any: dict[str, type[Event]] = {}
        self.handler = handler
        self.name = handler.name
        self.cls = cls
        self.commands = handler.commands
        self.batch = handler.batch
        self.circuit = handler.circuit
        self.once = handler.once
        self.serializer = serializer
        self.surroundings = surroundings
        self.retry: Retry = handler.retry or service.retry
        timeout = handler.timeout or service.timeout
        self.timeout = None if timeout is None else timeout.total_seconds()
        topic = handler.topic
        if topic is None:
            route = routing(cls)
            self.address = route.address
            self.reply: object = route.reply
            self.version = str(route.version)
        else:
            self.address = Address("topic", topic.name, topic.physical)
            self.reply = None
            self.version = "" if cls is Event else str(routing(cls).version)
        parameters = handler.parameters
        # async, takes the message alone, nothing around it: called without a Context
        alone = parameters.simple and handler.once is None and not service.middleware and self.timeout is None
        self.plain = alone and parameters.is_async

        self.validate = self._validator(topic, serializer)
        """JSON to the class at once, where its one version is all there is to know. None: `decode` must look."""
        self.short = self.plain and self.validate is not None and self.circuit is None
        """May its messages take the short way through `Outcomes.decide`?"""

    def _validator(self, topic: Topic | None, serializer: Serializer) -> Callable[[bytes], Event | Command[Any]] | None:
        route = None if topic is not None else routing(self.cls)
        if route is None or route.version > 1 or route.serializer is not None or serializer is not JSON_SERIALIZER:
            return None
        validate: Callable[[bytes], Event | Command[Any]] = self.cls.__pydantic_validator__.validate_json
        return validate

    def decode(self, message: Message) -> Event | Command[Any]:
        """UndecodableMessage where it cannot become its class."""
        headers = message.headers
        if (
            self.validate is not None
            and message.body is not None
            and headers.get(CONTENT_TYPE) == JSON
            and headers.get(VERSION, self.version) == self.version
        ):
            with suppress(Exception):  # what follows says what is wrong with it; a validator may raise anything
                return self.validate(message.body)
        cls = self.cls
        if cls is Event:
            cls = self._any.get(message.type) or self._find(message.type)
            if cls is not Undeclared and version(message) > routing(cls).version:
                cls = Undeclared  # of a newer version, no class here is the right one
        return decode(message, cls, self.serializer)

    def _find(self, wire_name: str) -> type[Event]:
        """The class of one of the messages of a topic, for a handler of them all."""
        topic = self.handler.topic
        found: type[Event] | None
        if not wire_name and topic is not None and isinstance(topic.default, type):
            found = topic.default
        else:
            module = getattr(self.handler.function, "__module__", "")
            found = nearest(declared(self.address.name).get(wire_name, ()), module)
        if found is not None:
            self._any[wire_name] = found
        return found or Undeclared

    def call(self, content: Event | Command[Any], delivery: Delivery, attempt: int, deadline: datetime | None) -> Call:
        return Call(self, content, delivery, attempt, deadline)


class Surroundings:
    """What all handlers of a running service share."""

    __slots__ = ("lifespan_value", "middleware", "outgoing", "service", "threads")

    def __init__(self, service: Service, threads: Threads, lifespan_value: object) -> None:
        self.service = service.name
        self.middleware = service.middleware
        self.outgoing = service.outgoing
        self.threads = threads
        self.lifespan_value = lifespan_value


class Call:
    """One attempt: dependencies set up, middleware, handler, dependencies torn down."""

    __slots__ = ("_attempt", "_content", "_deadline", "_delivery", "_entry", "outgoing")

    def __init__(
        self, entry: Entry, content: object, delivery: Delivery, attempt: int, deadline: datetime | None
    ) -> None:
        self._entry = entry
        self._content = content
        self._delivery = delivery
        self._attempt = attempt
        self._deadline = deadline
        self.outgoing: list[Outgoing] = []

    def run(self) -> Awaitable[object]:
        """What the handler returned; raises what it raised, or TimeoutError past its time limit."""
        entry = self._entry
        if entry.plain:
            result: Awaitable[object] = entry.handler.function(self._content)
            return result
        return self._limited() if entry.timeout is not None else self._surrounded()

    async def _limited(self) -> object:
        limit = self._entry.timeout
        assert limit is not None
        scope = asyncio.timeout(limit)
        try:
            async with scope:
                return await self._surrounded()
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise TimeoutError(f"{self._entry.name} ran longer than its limit of {limit:g} s") from error

    async def _surrounded(self) -> object:
        entry = self._entry
        parameters = entry.handler.parameters
        context = self._context()
        arguments: dict[str, Any] = dict.fromkeys(parameters.others, entry.surroundings.lifespan_value)
        if parameters.dependencies is None:
            return await self._through_middleware(arguments, context)
        async with AsyncExitStack() as stack:
            solved = await parameters.solve(stack, {parameters.message: self._content, **arguments}, context)
            return await self._through_middleware({**arguments, **solved}, context)
        raise AssertionError("a dependency swallowed the handler's exception")

    def _context(self) -> Context:
        return make_context(self._entry, self._delivery, self._attempt, self._deadline, self.outgoing)

    def _for_handler(self, context: Context) -> object:
        """What the handler's parameter for it gets."""
        return context

    async def _through_middleware(self, arguments: dict[str, Any], context: Context) -> object:
        parameters = self._entry.handler.parameters
        if parameters.context is not None:
            arguments[parameters.context] = self._for_handler(context)

        called = False

        async def innermost(_: Delivery) -> object:
            nonlocal called
            if called:
                raise RuntimeError(
                    f"a middleware of {self._entry.surroundings.service} called call_next() twice for "
                    f"{self._entry.name}: its handler runs once an attempt, and Retry says whether it is tried again"
                )
            called = True
            return await self._function(arguments)

        call_next: Callable[[Delivery], Awaitable[object]] = innermost
        for middleware in reversed(self._entry.surroundings.middleware):
            call_next = functools.partial(_call_middleware, middleware, call_next)
        return await call_next(context.delivery)

    async def _function(self, arguments: dict[str, Any]) -> object:
        handler = self._entry.handler
        if handler.parameters.is_async:
            return await handler.function(self._content, **arguments)
        return await self._entry.surroundings.threads.run(handler.function, self._content, **arguments)


def make_context(
    entry: Entry, delivery: Delivery, attempt: int, deadline: datetime | None, outgoing: list[Outgoing]
) -> Context:
    """What the handler may know of one message."""
    service, group = entry.surroundings.service, entry.handler.group
    return Context(
        service=service,
        group=service if group is None else f"{service}.{group}",
        delivery=frozen(delivery),
        attempt=attempt,
        outgoing=outgoing,
        deadline=deadline,
    )


def frozen(delivery: Delivery) -> Delivery:
    """For handlers and middleware: what they would change in its headers would show in retries and other groups."""
    message = delivery.message
    return delivery._replace(message=message._replace(headers=MappingProxyType(message.headers)))


async def _call_middleware(
    middleware: Callable[..., Awaitable[object]], call_next: Callable[[Delivery], Awaitable[object]], delivery: Delivery
) -> object:
    return await middleware(delivery, call_next)


class Table:
    """The handlers of a group, by what arrives."""

    def __init__(
        self, handlers: Sequence[Handler], make: Callable[[Handler, type[Event | Command[Any]]], Entry]
    ) -> None:
        self.shared = len(handlers) > 1
        """Are there several handlers?"""
        self._by_type: dict[str, Entry] = {}
        self._by_address: dict[tuple[str, str, str], Entry] = {}
        self._defaults: dict[str, Entry] = {}
        self._everything: dict[str, Entry] = {}
        for handler in handlers:
            for accepted in handler.parameters.accepts:
                self._add(handler, accepted, make(handler, accepted))
        self.get = self._by_type.get
        """The entry that takes a type, if its address is the message's; None: look with `find`."""

    @property
    def types(self) -> Mapping[str, Entry]:
        """What it has handlers for, one by one, by their wire names: what `get` looks into."""
        return self._by_type

    def find(self, message: Message) -> Entry | None:
        """The entry for a message at its original address; None: nobody takes it, or only a newer version of its
        class could."""
        entry = self._known(message)
        if entry is not None and version(message) > routing(entry.cls).version:
            return None
        return entry or self._everything.get(message.address.name)

    def newer(self, message: Message) -> bool:
        """Is its type known here, but only in older versions?"""
        return self._known(message) is not None

    def _known(self, message: Message) -> Entry | None:
        kind, name, _ = message.address
        entry = self._by_address.get((kind, name, message.type))
        return self._defaults.get(name) if entry is None and not message.type else entry

    def _add(self, handler: Handler, cls: type[Event | Command[Any]], entry: Entry) -> None:
        kind, name, _ = entry.address
        if cls is Event:
            self._everything[name] = entry
            return
        route = routing(cls)
        topic = handler.topic or route.topic
        self._by_address[kind, name, route.type] = entry
        self._by_type.setdefault(route.type, entry)
        if topic is not None and topic.default in (cls, route.type):
            self._defaults[name] = entry


__all__ = ["JSON_SERIALIZER", "Call", "Entry", "Surroundings", "Table"]
