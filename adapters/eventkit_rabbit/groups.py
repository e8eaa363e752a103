"""Which groups there are, what they read, and how one is removed."""

from __future__ import annotations

from collections.abc import Collection

from eventkit.adapter import Address, Group
from eventkit.errors import CapabilityNotSupported, GroupInUse
from eventkit_rabbit.delay import RUNGS
from eventkit_rabbit.link import Link
from eventkit_rabbit.management import Management
from eventkit_rabbit.names import Names
from eventkit_rabbit.topology import Topology


class Groups:
    """`management`: None where nobody said where it is. AMQP shows only what is asked for by its name."""

    def __init__(self, link: Link, names: Names, topology: Topology, management: Management | None) -> None:
        self._link = link
        self._names = names
        self._topology = topology
        self._management = management

    async def find(self, names: Collection[str] | None) -> list[Group]:
        if names is None:
            if self._management is None:
                raise CapabilityNotSupported(
                    "rabbit lists groups only with RabbitMQ's management API: set EVENTKIT_RABBIT__MANAGEMENT to its "
                    "URL, such as http://localhost:15672, or give the groups' names"
                )
            there = set(self._names.groups(await self._management.queues()))
        else:
            there = {name for name in names if await self._topology.look(self._names.dead(name)) is not None}
        sources: dict[str, list[Address]] = {self._names.queue(name): [] for name in there}
        if self._management is not None and there:
            for exchange, queue in await self._management.bindings():
                if exchange and queue in sources:
                    sources[queue].append(self._names.source(exchange))
        return [Group(name, tuple(sources[self._names.queue(name)])) for name in sorted(there)]

    async def remove(self, name: str) -> None:
        """The queue of dead letters goes last. To delete what is not there is no error of RabbitMQ's."""
        found = await self._topology.look(self._names.queue(name))
        if found is not None and found.consumers:
            raise GroupInUse(name, found.consumers)
        rungs = [self._names.rung(name, label) for label in RUNGS]
        inbox = self._names.exchange(Address("inbox", name))
        wire = await self._link.wire()
        async with wire.scratch() as channel:
            for queue in (self._names.queue(name), *rungs):
                await channel.queue_delete(queue)
            await channel.exchange_delete(inbox)
            await channel.queue_delete(self._names.dead(name))
        self._topology.exchanges.discard(inbox)
        self._topology.rungs.difference_update(rungs)
