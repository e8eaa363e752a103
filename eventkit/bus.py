"""The bus: what user code publishes, sends and requests through."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from eventkit import headers as h
from eventkit import replies
from eventkit.adapter import Adapter, Message, Provision
from eventkit.clock import Clock, SystemClock, check_delay, check_time
from eventkit.dead_letters import DeadLetters
from eventkit.errors import (
    BrokerUnavailable,
    Closed,
    DeclarationError,
    EventkitError,
    Failure,
    InvalidMessage,
    PublishError,
    RequestError,
)
from eventkit.health import Health, examine
from eventkit.instruments import Instrument, Instruments, Outbox, Page, Place
from eventkit.many import Many
from eventkit.messages import Command, Event, routing
from eventkit.publishing import Publisher, permanent
from eventkit.redacting import Redactor
from eventkit.requests import Requests
from eventkit.running import Core, Running
from eventkit.service import Service
from eventkit.watching import Happened, Watch, What, harmless
from eventkit.wire import JSON_SERIALIZER, Envelope, Serializer, encode

R = TypeVar("R")

log = logging.getLogger("eventkit")

_START = 10.0
"""Seconds to reach the broker at start."""
_STOP = 7.0
"""Seconds in which a bus is closed, whatever the broker says. With a service's stop before it, and what that may take
beyond its time, that stays below the 30 that Kubernetes gives."""


@dataclass(slots=True)
class _Opened:
    """What a bus and those made of it by `carrying` have in common: they are open together, and closed together."""

    core: Core | None = None
    requests: Requests | None = None


class Bus:
    """One connection to one broker. `async with` opens and closes it; it may be opened again afterwards."""

    def __init__(
        self,
        adapter: Adapter,
        *,
        source: str,
        provision: Provision = Provision.CREATE,
        serializer: Serializer = JSON_SERIALIZER,
        clock: Clock | None = None,
        watch: Watch = None,
        instruments: Sequence[Instrument] = (),
        redactor: Redactor | None = None,
    ) -> None:
        self._adapter = adapter
        self._source = source
        self._provision = provision
        self._serializer = serializer
        self._clock = clock or SystemClock()
        self._place = Place(adapter.name, source, None)
        self._instruments = Instruments(instruments) if instruments else None
        self._redactor = redactor or Redactor()
        self._watch = watch = harmless(watch)
        """Of services, which tell their instruments by themselves."""
        self._tell = watch if self._instruments is None else self._instruments.watch(self._place, watch)
        self._opened = _Opened()
        self._correlation_id: str | None = None
        self._headers: Mapping[str, str] = {}
        self._plain = Envelope(source=source)
        """What is said where a call says nothing itself."""

    @property
    def broker(self) -> str:
        """The adapter's name."""
        return self._adapter.name

    @property
    def adapter(self) -> Adapter:
        """The port, for tools: to browse dead letters, to measure a backlog."""
        return self._adapter

    @property
    def serializer(self) -> Serializer:
        """How bodies are written, where neither their class nor the service that sends them names another way."""
        return self._serializer

    def health(self) -> Health:
        """Whether the broker can be reached now. What `run` gives knows of its services besides."""
        core = self._open()
        return examine(core.adapter, core.replies())

    async def metrics(self) -> Page | None:
        """What the instruments of this bus tell at `/metrics`, with those of services that run on it.

        None: nothing; EVENTKIT_METRICS=prometheus is one that does.
        """
        return None if self._instruments is None else await self._instruments.page()

    async def __aenter__(self) -> Self:
        if self._opened.core is not None:
            raise Closed("this bus is open already: one `async with` at a time")
        try:
            await self._adapter.start(_START)
        except EventkitError:
            raise
        except Exception as error:
            raise BrokerUnavailable(
                f"cannot connect to {self._adapter.name} within {_START:g} s ({type(error).__name__}: {error}); "
                "is it running, and are EVENTKIT_URL and the credentials right?"
            ) from error
        publisher = Publisher(self._adapter, self._provision)
        requests = Requests(self._adapter, self._source, self._clock)
        self._opened.core = Core(
            self._adapter,
            publisher,
            self._provision,
            self._serializer,
            self._clock,
            self._watch,
            self._instruments,
            self._redactor,
            lambda: {requests.reply_to: requests.error},
        )
        self._opened.requests = requests
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        core, requests = self._opened.core, self._opened.requests
        if core is None or requests is None:
            return
        self._opened.core = self._opened.requests = None
        ends = time.monotonic() + _STOP
        try:
            await requests.stop(1.0)
            await core.publisher.close(_STOP - 4.0)
        finally:
            await self._adapter.stop(max(ends - time.monotonic(), 3.0))

    async def publish(
        self,
        event: Event,
        *,
        id: str | None = None,
        correlation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: timedelta | None = None,
    ) -> None:
        """Publish an event; returns when the broker has it.

        `id`: your own, so that publishing it again after an unknown outcome makes no second message where the broker
        drops repeats: two messages of one source and one id are one message; None: a new one. `delay`: each group gets
        it that much later (24 hours at most); None or zero: at once. Raises PublishError where the broker did not
        confirm, MessageTooLarge, InvalidMessage.
        """
        if not isinstance(event, Event):
            raise _wrong_verb("publish", event)
        await self._put(event, self._about(id=id, correlation_id=correlation_id, headers=headers, delay=delay))

    async def send(
        self,
        command: Command[Any],
        *,
        id: str | None = None,
        correlation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: timedelta | None = None,
    ) -> None:
        """Send a command to the service that owns it; returns when the broker has it. Arguments as for `publish`.

        Raises NoOwner where that service has no inbox on this broker, else as `publish`.
        """
        if not isinstance(command, Command):
            raise _wrong_verb("send", command)
        await self._put(command, self._about(id=id, correlation_id=correlation_id, headers=headers, delay=delay))

    async def publish_many(self, events: Iterable[Event], *, headers: Mapping[str, str] | None = None) -> None:
        """Publish many events, pipelined, in order per key; returns when the broker has all.

        PublishError says in `failures` which were not confirmed, and which cannot be written; all others were
        confirmed. Something that is no event at all raises DeclarationError, after those before it went out; as any
        error that `events` raises, it has the PublishError of those before it as its cause, if there is one.
        """
        many = Many(self._here().publisher, self._happened, self._place, self._instruments)
        about = self._about(headers=headers)
        try:
            for event in events:
                if not isinstance(event, Event):
                    raise _wrong_verb("publish", event)
                try:
                    many.add(event, encode(event, about, self._serializer))
                except InvalidMessage as error:
                    many.refuse(event, error)
                if many.full:
                    await many.hand_over()
        except asyncio.CancelledError:
            many.give_up()
            await many.end()
            raise
        except Exception as error:
            if (unconfirmed := self._unconfirmed(await many.end(), many.count)) is not None:
                error.__cause__ = error.__cause__ or unconfirmed
                error.add_note(str(unconfirmed))
            raise
        if (unconfirmed := self._unconfirmed(await many.end(), many.count)) is not None:
            raise unconfirmed from unconfirmed.failures[0].error

    def _unconfirmed(self, failures: Sequence[Failure], count: int) -> PublishError | None:
        if not failures:
            return None
        return PublishError(
            f"{len(failures)} of {count} events were not confirmed by {self.broker}; the first, "
            f"number {failures[0].index}: {failures[0].error!r}",
            failures,
        )

    async def request(
        self,
        command: Command[R],
        *,
        timeout: timedelta = timedelta(seconds=30),
        correlation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> R:
        """Send a command and wait for its reply.

        `timeout` counts from this call; past it the service does not start the command any more. Raises
        CommandRejected, CommandFailed, RequestTimeout (no proof that it did not happen), NoOwner, and what `send`
        raises.
        """
        core, requests = self._here(), self._opened.requests
        if not isinstance(command, Command):
            raise _wrong_verb("request", command)
        if check_time("request(): timeout", timeout) <= timedelta(0):
            raise DeclarationError(f"request(timeout={timeout}): it must be longer than nothing")
        assert requests is not None
        about = Envelope(
            source=self._source,
            correlation_id=h.check_id("correlation_id", correlation_id) or self._correlation_id,
            headers=self._with_own(headers),
            expiry=core.clock.now() + timeout,
            reply_to=requests.reply_to,
        )
        route = routing(type(command))
        async with requests.waiting(type(command).__name__, timeout) as request:
            try:
                await requests.start()
            except (EventkitError, TimeoutError):
                raise
            except Exception as error:
                raise PublishError(f"cannot open a reply address on {self.broker}: {error}") from error
            if not request.reply.done():  # it is where the bus was closed meanwhile
                request.sent = True
                await self._put(command, replace(about, id=request.id))
            began = time.perf_counter()
            reply = await request.reply
            if self._instruments is not None:
                self._instruments.replied(self._place, reply, time.perf_counter() - began)
        try:
            answer: R = replies.read(reply, route.reply, route.serializer or core.serializer)
        except RequestError as error:  # its text is the other service's: who reads this trace wants to know whose
            error.add_note(f"the answer of {route.address.name} to {type(command).__name__} ({request.id})")
            raise
        return answer

    def carrying(self, *, correlation_id: str | None = None, headers: Mapping[str, str] | None = None) -> Bus:
        """This bus, with what is said here in all that is published through the one returned: the correlation id and
        the headers of a web request, say. What a call says itself wins. It is open as long as this bus is.
        """
        other = copy.copy(self)
        other._correlation_id = h.check_id("correlation_id", correlation_id) or self._correlation_id  # noqa: SLF001 one of our own
        other._headers = {**self._headers, **h.check(headers)}  # noqa: SLF001
        other._plain = replace(self._plain, correlation_id=other._correlation_id, headers=other._headers)  # noqa: SLF001
        return other

    def dead_letters(self, group: str) -> DeadLetters:
        """What this group has given up on: to list, show, retry and discard. A service's name is its group's name."""
        core = self._open()
        return DeadLetters(core.adapter, self._forward, core.clock, core.serializer, group)

    def run(self, *services: Service) -> Running:
        """Run services in this process: `async with bus.run(orders, payments): ...`."""
        return Running(self._open(), services)

    def encode(
        self,
        message: Event | Command[Any],
        *,
        id: str | None = None,
        correlation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: timedelta | None = None,
    ) -> Message:
        """The wire form, for an outbox: keep it in your own transaction, and `deliver` it afterwards."""
        about = self._about(id=id, correlation_id=correlation_id, headers=headers, delay=delay)
        encoded = encode(message, about, self._serializer)
        return encoded if self._instruments is None else self._instruments.created(self._place, encoded)

    async def deliver(self, messages: Sequence[Message]) -> None:
        """Publish messages that `encode` made; returns when the broker has all. PublishError says which failed."""
        answers = await self._forward(messages)
        failures = [
            Failure(place, None, error, unknown=not permanent(error))
            for place, error in enumerate(answers)
            if error is not None
        ]
        if failures:
            raise PublishError(
                f"{len(failures)} of {len(messages)} messages were not confirmed by {self.broker}: "
                f"{failures[0].error!r}",
                failures,
            ) from failures[0].error

    def relaying(self, outbox: Outbox) -> AbstractContextManager[None]:
        """For a relay that delivers through this bus: meanwhile its instruments tell what waits in this outbox."""
        return nullcontext() if self._instruments is None else self._instruments.relaying(self._place, outbox)

    async def _forward(self, messages: Sequence[Message]) -> Sequence[Exception | None]:
        """Publish what was made before, and keeps the context in which it was."""
        publisher = self._here().publisher
        if self._instruments is None:
            return await publisher.publish_batch(messages)
        return await self._instruments.send(self._place, messages, publisher.publish_batch, forwarded=True)

    async def _put(self, message: Event | Command[Any], about: Envelope) -> None:
        core = self._here()
        encoded = encode(message, about, self._serializer)
        if self._instruments is None:
            error = await core.publisher.publish(encoded)
        else:

            async def publish(messages: Sequence[Message]) -> Sequence[Exception | None]:
                nonlocal encoded
                (encoded,) = messages
                return (await core.publisher.publish(encoded),)

            (error,) = await self._instruments.send(self._place, (encoded,), publish)
        if error is None:
            self._happened(encoded, message)
            return
        failure = Failure(0, message, error, unknown=not permanent(error))
        if isinstance(error, PublishError):
            error.failures = (failure,)
            raise error
        if isinstance(error, Closed):
            raise error
        said = "it may or may not have it: publish again with the same id" if failure.unknown else "it was not sent"
        raise PublishError(
            f"{type(message).__name__} {encoded.headers[h.ID]} was not confirmed by {self.broker} "
            f"({type(error).__name__}: {error}); {said}",
            [failure],
        ) from error

    def _about(
        self,
        *,
        id: str | None = None,
        correlation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: timedelta | None = None,
    ) -> Envelope:
        if id is None and correlation_id is None and not headers and delay is None:
            return self._plain
        check_delay(delay)
        return Envelope(
            source=self._source,
            id=h.check_id("id", id),
            correlation_id=h.check_id("correlation_id", correlation_id) or self._correlation_id,
            headers=self._with_own(headers),
            due=self._clock.now() + delay if delay else None,
        )

    def _with_own(self, headers: Mapping[str, str] | None) -> Mapping[str, str]:
        checked = h.check(headers)
        return {**self._headers, **checked} if self._headers else checked

    def _open(self) -> Core:
        if self._opened.core is None:
            raise Closed("this bus is not open: use it inside `async with eventkit.connect() as bus`")
        return self._opened.core

    def _here(self) -> Core:
        """For what waits for the broker: a client that is used from two event loops may never answer."""
        core = self._open()
        if asyncio.get_running_loop() is not core.publisher.loop:
            raise DeclarationError(
                "this bus was opened in another event loop, and is used there alone: from other threads and loops take "
                "eventkit.blocking.connect(), or asyncio.run_coroutine_threadsafe(bus.publish(...), its_loop)"
            )
        return core

    def _happened(self, message: Message, content: Event | Command[Any]) -> None:
        if self._tell is not None:
            what = What.PUBLISHED if isinstance(content, Event) else What.SENT
            self._tell(Happened(what, self._source, message, content, 1, None, None))


def _wrong_verb(verb: str, given: object) -> DeclarationError:
    name = type(given).__name__
    if isinstance(given, type):
        return DeclarationError(f"{verb}() takes a message, not its class: make one, {given.__name__}(...)")
    if isinstance(given, Event):
        return DeclarationError(f"{name} is an event: {verb}() takes commands; publish() it")
    if isinstance(given, Command):
        return DeclarationError(f"{name} is a command: {verb}() takes events; send() or request() it")
    return DeclarationError(f"{verb}() takes an instance of an Event or Command class, not {name}")
