"""What stands on the broker: exchanges, queues and bindings, and how they are declared.

Topics and inboxes are durable topic exchanges. A group is one quorum queue bound with `#` to the exchange of each of
its sources, so that the exchange of a delivery says its source. What reaches the queue through the default exchange
came from the group's retry address: straight, or through a rung of its ladder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import NamedTuple

from aiormq import exceptions as amqp

from eventkit.adapter import Address, Group, Provision
from eventkit.errors import CapabilityNotSupported, NotProvisioned
from eventkit_rabbit import delay
from eventkit_rabbit.link import Link
from eventkit_rabbit.names import Names, lives_with_consumer
from eventkit_rabbit.queues import Queues
from eventkit_rabbit.silent import Silent
from eventkit_rabbit.wire import Wire

_YOUNG = 1.5
"""Seconds. A node that is killed within the first one of a quorum queue loses it, or what is in it (`silent`)."""


class Found(NamedTuple):
    """What a queue says of itself."""

    ready: int
    """Messages that wait to be delivered."""
    consumers: int


class Topology:
    """Declares and asks. Remembers what it found, so that it asks once."""

    def __init__(self, link: Link, names: Names, queues: Queues) -> None:
        self._link = link
        self._queues = queues
        self.names = names
        self.silent = Silent()
        self.exchanges: set[str] = set()
        """Known to be there."""
        self.rungs: set[str] = set()
        """Delay queues known to be there."""
        self.young: dict[str, float] = {}
        """Delay queues that may have just been made, by us or another process, and the loop's time at which they
        would survive a crash of the broker."""
        self._making: dict[str, asyncio.Lock] = {}
        """By delay queue: who needs it while another makes it waits, and asks the broker nothing."""
        self._met: set[str] = set()
        """Delay queues that were there on the connection that is now in use."""
        self._on: Wire | None = None

    def forget(self) -> None:
        """Something was deleted on the broker: ask again."""
        self.exchanges.clear()
        self.rungs.clear()

    async def provision(self, wanted: Collection[Address | Group], how: Provision) -> None:
        for one in wanted:
            if isinstance(one, Group) and one.start == "earliest" and not lives_with_consumer(one):
                raise CapabilityNotSupported(
                    f"group {one.name}: RabbitMQ keeps nothing for a group that is not there yet, so it cannot start "
                    "at the earliest message; leave start at 'now'"
                )
        if how is Provision.ASSUME or not wanted:
            return
        if how is Provision.CREATE:
            await self._create(wanted)
        missing = await self._missing(self._to_check(wanted, how))
        if missing:
            raise NotProvisioned(f"missing on RabbitMQ: {', '.join(sorted(missing))}")

    def _to_check(self, wanted: Collection[Address | Group], how: Provision) -> dict[tuple[str, str], str]:
        """(kind, physical name) -> how people call it."""
        found: dict[tuple[str, str], str] = {}
        for one in wanted:
            if isinstance(one, Group):
                if how is Provision.CREATE or lives_with_consumer(one):
                    continue
                for source in one.sources:
                    name = self.names.exchange(source)
                    found["exchange", name] = f"{source} (exchange {name})"
                queues = [("group " + one.name, self.names.queue(one.name)), (str(one.dead), self.names.dead(one.name))]
                for called, name in queues:
                    found["queue", name] = f"{called} (queue {name})"
            elif one.kind in ("topic", "inbox"):
                if how is Provision.VALIDATE or one.kind == "inbox":
                    name = self.names.exchange(one)
                    found["exchange", name] = f"{one} (exchange {name})"
            elif one.kind in ("retry", "dead") and how is Provision.VALIDATE:
                name = self.names.dead(one.name) if one.kind == "dead" else self.names.queue(one.name)
                found["queue", name] = f"{one} (queue {name})"
        return found

    async def _missing(self, wanted: dict[tuple[str, str], str]) -> list[str]:
        wire = await self._link.wire()
        missing = []
        for (kind, name), called in wanted.items():
            if kind == "exchange":
                if not await self._has_exchange(wire, name):
                    missing.append(called)
            elif await self._ready(wire, name) is None:
                missing.append(called)
        return missing

    async def _create(self, wanted: Collection[Address | Group]) -> None:
        wire = await self._link.wire()
        for address in _exchanges_of(wanted):
            await self._create_exchange(wire, address)
        for one in wanted:
            if isinstance(one, Group):
                if not lives_with_consumer(one):
                    await self._create_group(wire, one.name, one.sources)
            elif one.kind == "retry":
                await self._create_group(wire, one.name, ())
            elif one.kind == "dead":
                await self._queues.declare(wire, self.names.dead(one.name))

    async def _create_exchange(self, wire: Wire, address: Address) -> None:
        name = self.names.exchange(address)
        # one that exists under its own name is somebody's: of whatever type it is, it is taken as it is
        if address.physical is not None and await self._has_exchange(wire, name):
            return
        async with wire.scratch() as channel:
            try:
                await channel.exchange_declare(name, exchange_type="topic", durable=True)
            except amqp.ChannelPreconditionFailed as error:
                raise NotProvisioned(
                    f"exchange {name} exists but not as a durable topic exchange: {error}; delete it, or name it with "
                    "physical="
                ) from error
        self.exchanges.add(name)

    async def _create_group(self, wire: Wire, group: str, sources: Iterable[Address]) -> None:
        queue, dead = self.names.queue(group), self.names.dead(group)
        await self._queues.declare(wire, dead)
        await self._queues.declare(wire, queue, dead_letters_to=dead)
        async with wire.scratch() as channel:
            for source in sources:
                await channel.queue_bind(queue, self.names.exchange(source), routing_key="#")

    def knows_rung(self, name: str) -> bool:
        """Nobody needs to ask for this delay queue. After a reconnect it is asked for again: a broker that was killed
        may have lost it, and another process have just made it anew."""
        wire = self._link.now()
        if wire is not None and wire is not self._on:
            self._on = wire
            self._met.clear()
        return name in self._met and name in self.rungs

    async def create_rung(self, group: str, label: str) -> str | None:
        """The delay queue's name; None if there is no such group."""
        name = self.names.rung(group, label)
        async with self._making.setdefault(name, asyncio.Lock()):
            if self.knows_rung(name) or await self._make_rung(group, name):
                return name
        return None

    async def _make_rung(self, group: str, name: str) -> bool:
        wire = await self._link.wire()
        if await self._ready(wire, name) is None:
            queue = self.names.queue(group)
            if await self._ready(wire, queue) is None:
                return False
            await self._queues.declare(wire, name, dead_letters_to=queue)
        self.young[name] = asyncio.get_running_loop().time() + _YOUNG
        self.rungs.add(name)
        if wire is self._link.now():
            self._on = wire
            self._met.add(name)
        return True

    def label(self, group: str, wait: int) -> str:
        """The rung for a wait in milliseconds, or one that stands in for it while it is silent."""
        first = delay.rung(wait)
        if self.silent.is_passed_by(self.names.rung(group, first)):
            for other in delay.others(wait):
                if not self.silent.is_passed_by(self.names.rung(group, other)):
                    return other
        return first

    async def has_exchange(self, name: str) -> bool:
        """Is it there? Asked once for each that is."""
        return name in self.exchanges or await self._has_exchange(await self._link.wire(), name)

    async def _has_exchange(self, wire: Wire, name: str) -> bool:
        try:
            async with wire.scratch() as channel:
                await channel.exchange_declare(name, passive=True)
        except amqp.ChannelNotFoundEntity:
            self.exchanges.discard(name)
            return False
        except amqp.ChannelAccessRefused:
            pass  # not even allowed to look: whether we may publish, the publish tells
        self.exchanges.add(name)
        return True

    async def look(self, queue: str) -> Found | None:
        """None: no such queue."""
        return await self._look(await self._link.wire(), queue)

    async def _look(self, wire: Wire, queue: str) -> Found | None:
        try:
            async with wire.scratch() as channel:
                found = await channel.queue_declare(queue, passive=True)
                return Found(found.message_count or 0, found.consumer_count or 0)
        except amqp.ChannelNotFoundEntity:
            return None

    async def _ready(self, wire: Wire, queue: str) -> int | None:
        """How many wait there; None: no such queue."""
        found = await self._look(wire, queue)
        return None if found is None else found.ready

    async def ready(self, queue: str) -> int | None:
        return await self._ready(await self._link.wire(), queue)


def _exchanges_of(wanted: Collection[Address | Group]) -> Iterable[Address]:
    seen: dict[Address, None] = {}
    for one in wanted:
        if isinstance(one, Group):
            if not lives_with_consumer(one):
                seen.update(dict.fromkeys(one.sources))
        elif one.kind == "topic":
            seen[one] = None
    return seen
