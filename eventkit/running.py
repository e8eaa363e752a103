"""Running: services started on a bus's adapter, watched, and stopped."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from eventkit import standstill
from eventkit.adapter import Adapter, Backlog, Group, Message, Provision
from eventkit.clock import Clock
from eventkit.consuming import Consuming
from eventkit.declaring import Handler
from eventkit.errors import BrokerUnavailable, CapabilityNotSupported, DeclarationError, EventkitError
from eventkit.gathering import Gatherer
from eventkit.handling import Entry, Surroundings, Table
from eventkit.health import Health, examine
from eventkit.instruments import GroupState, Instruments, Outbox, Page, Place
from eventkit.messages import Command, Event
from eventkit.outcomes import Outcomes
from eventkit.outgoing import Emitter
from eventkit.publishing import Publisher
from eventkit.redacting import Redactor
from eventkit.service import Service
from eventkit.silence import Silence
from eventkit.suspects import Suspects
from eventkit.telling import Counts, Telling
from eventkit.threads import Threads
from eventkit.watching import Watch
from eventkit.wire import Serializer

log = logging.getLogger("eventkit")

_MEASURE = 5.0
"""Seconds that the broker has to tell a group's backlog."""
_AT_ONCE = 8
"""Groups that begin to read at the same time: a start mostly waits, but fifty of them would crowd a broker."""


@dataclass(frozen=True, slots=True)
class Core:
    """What a bus shares with the services that run on it."""

    adapter: Adapter
    publisher: Publisher
    provision: Provision
    serializer: Serializer
    clock: Clock
    watch: Watch
    instruments: Instruments | None
    """None: there are none."""
    redactor: Redactor
    replies: Callable[[], Mapping[str, Exception | None]] = dict
    """Why the bus's own consumer of replies reads nothing, by its name; empty where it has none."""


class Running:
    """Services that consume, from `async with` to its end. Leaving drains them: see `Service.stop_timeout`."""

    def __init__(self, core: Core, services: Sequence[Service]) -> None:
        self._core = core
        self._services = services
        self._stack = AsyncExitStack()
        self._consuming: dict[str, Consuming] = {}
        self._starting = asyncio.Semaphore(_AT_ONCE)
        self._silence = Silence()
        self._told = False
        """Were instruments told that it runs?"""
        _check(core.adapter, services)

    async def __aenter__(self) -> Self:
        try:
            self._stack.enter_context(standstill.watched(self._services))
            # every group exists before any handler runs: what the first one publishes reaches the last
            groups = [group for service in self._services for group, _ in service.groups().values()]
            await self._on_broker("make", groups, self._core.adapter.provision(groups, self._core.provision))
            for service in self._services:
                await self._make(service)
            await _all_at_once([self._read(consuming) for consuming in self._consuming.values()])
            if self._core.instruments is not None:
                self._core.instruments.started(self)
                self._told = True
            for service in self._services:
                log.info("%s is running on %s", service.name, self._core.adapter.name)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop fetching, finish what runs, give back the rest, end the lifespans. Twice is harmless."""
        began = time.monotonic()
        if self._core.instruments is not None and self._told:
            self._core.instruments.stopped(self)
            self._told = False
        try:
            await _each_to_its_end([self._stop_service(service) for service in self._services])
        finally:
            await self._stack.aclose()
        if self._consuming:
            log.info("stopped %s in %.2f s", self._names(), time.monotonic() - began)
        self._consuming = {}

    @property
    def counts(self) -> Mapping[str, Counts]:
        """By group: what became of its deliveries."""
        return {name: consuming.counts for name, consuming in self._consuming.items()}

    @property
    def at_work(self) -> int:
        """Deliveries that are being handled, or wait for a worker; without those that wait for the clock."""
        return sum(consuming.held - consuming.sleeping for consuming in self._consuming.values())

    def health(self) -> Health:
        """Red as soon as the broker cannot be reached, or one group does not consume."""
        circuits = {
            f"{name}: {handler}": state
            for name, consuming in self._consuming.items()
            for handler, state in consuming.circuits.items()
        }
        errors = {name: consuming.error for name, consuming in self._consuming.items()}
        errors.update(self._core.replies())
        return examine(self._core.adapter, errors, circuits)

    @property
    def measured(self) -> bool:
        """Is there an instrument that has something to tell at `/metrics`?"""
        return self._core.instruments is not None and self._core.instruments.tells

    async def metrics(self) -> Page | None:
        """What instruments tell at `/metrics`. None: nothing; EVENTKIT_METRICS=prometheus is one that does."""
        return None if self._core.instruments is None else await self._core.instruments.page()

    # what instruments ask: eventkit.instruments.Consumers

    def states(self) -> Sequence[GroupState]:
        """Of each group, at this moment."""
        return [consuming.state for consuming in self._consuming.values()]

    async def backlogs(self) -> Mapping[Place, Backlog]:
        """What waits for each group on the broker, which is asked. One that it does not tell of is left out."""
        found: dict[Place, Backlog] = {}
        for consuming in list(self._consuming.values()):
            with suppress(Exception):  # it is away, and health says so
                async with asyncio.timeout(_MEASURE):
                    found[consuming.place] = await self._core.adapter.measure(consuming.group)
        return found

    async def _make(self, service: Service) -> None:
        """All that a service needs before it reads."""
        core = self._core
        value = None
        if service.lifespan is not None:
            value = await self._stack.enter_async_context(service.lifespan())
        for store in {id(handler.once): handler.once for handler in service.handlers}.values():
            if store is not None:
                await self._stack.enter_async_context(store.running(self._relayed(service)))
                if core.instruments is not None and isinstance(store, Outbox):
                    place = Place(core.adapter.name, service.name, None)
                    self._stack.enter_context(core.instruments.relaying(place, store))
        threads = Threads(service.name, service.concurrency)
        self._stack.callback(threads.stop)
        surroundings = Surroundings(service, threads, value)
        serializer = service.serializer or core.serializer

        def make(handler: Handler, cls: type[Event | Command[Any]]) -> Entry:
            return Entry(handler, cls, service, serializer, surroundings)

        for name, (group, handlers) in service.groups().items():
            place = Place(core.adapter.name, service.name, name)
            emitter = Emitter(core.publisher, place, serializer, core.clock, core.watch, core.instruments)
            gatherer = Gatherer(core.clock) if any(handler.batch for handler in handlers) else None
            telling = Telling(place, core.watch, core.instruments, core.redactor)
            outcomes = Outcomes(group, Table(handlers, make), emitter, core.clock, telling, gatherer)
            suspects = Suspects(group, outcomes, self._silence, core.clock, service.quarantine_after)
            batch = max((handler.batch.size for handler in handlers if handler.batch), default=0)
            consuming = Consuming(group, outcomes, suspects, core.adapter, core.clock, service.concurrency, batch)
            self._consuming[name] = consuming

    def _relayed(self, service: Service) -> Callable[[Sequence[Message]], Awaitable[Sequence[Exception | None]]]:
        """How a store of what was handled publishes what it finds unsent."""
        core = self._core
        if core.instruments is None:
            return core.publisher.publish_batch
        place = Place(core.adapter.name, service.name, None)
        return functools.partial(core.instruments.send, place, publish=core.publisher.publish_batch, forwarded=True)

    async def _read(self, consuming: Consuming) -> None:
        async with self._starting:
            await self._on_broker("read", [consuming.group], consuming.start())

    async def _on_broker(self, what: str, groups: Sequence[Group], work: Awaitable[None]) -> None:
        try:
            await work
        except EventkitError:
            raise
        except Exception as error:
            names = ", ".join(group.name for group in groups)
            raise BrokerUnavailable(
                f"cannot {what} the group {names} on {self._core.adapter.name} ({type(error).__name__}: {error})"
            ) from error

    async def _stop_service(self, service: Service) -> None:
        mine = [self._consuming[name] for name in service.groups() if name in self._consuming]
        await _each_to_its_end([consuming.stop(service.stop_timeout.total_seconds()) for consuming in mine])

    def _names(self) -> str:
        return ", ".join(service.name for service in self._services)


async def _all_at_once(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """All of these, or the first error, and then none of them goes on."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise


async def _each_to_its_end(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """All of these, whatever others raise; then the first error."""
    for ended in await asyncio.gather(*works, return_exceptions=True):
        if ended is not None:
            raise ended


def _check(adapter: Adapter, services: Sequence[Service]) -> None:
    """Refuse what cannot run, before anything is consumed."""
    if not services:
        raise DeclarationError("run() needs a service")
    names = [service.name for service in services]
    for name in names:
        if names.count(name) > 1:
            raise DeclarationError(f"two services are named {name!r}; replicas run in processes of their own")
    groups: dict[str, Service] = {}
    for service in services:
        for group in service.groups():
            first = groups.setdefault(group, service)
            if first is not service:
                raise DeclarationError(
                    f"{first.name!r} and {service.name!r} both make the group {group!r}, and would share its messages; "
                    "rename the service, or its handlers' group="
                )
        if not service.handlers:
            raise DeclarationError(f"service {service.name!r} has no handlers: nothing would ever run")
        if service.start == "earliest" and not adapter.capabilities.start_earliest:
            raise CapabilityNotSupported(
                f"Service({service.name!r}, start='earliest'): {adapter.name} keeps nothing for a group that did not "
                "exist; leave start= out, or choose another broker"
            )
        if service.order_across_replicas and not adapter.capabilities.key_order_across_replicas:
            raise CapabilityNotSupported(
                f"Service({service.name!r}, order_across_replicas=True): {adapter.name} gives a message to whichever "
                "replica is free, whatever its key; run one replica and leave it out, or choose a broker that can"
            )
