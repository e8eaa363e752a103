"""Which groups there are, what they read, and how one is removed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from eventkit.adapter import Address, Group
from eventkit.errors import GroupInUse
from eventkit.names import Kind
from eventkit_kafka.cluster import Cluster


class Groups:
    """Found by their dead-letter topics; by the marks that they have committed, what they read."""

    def __init__(self, cluster: Cluster) -> None:
        self._topics = cluster.topics
        self._publisher = cluster.publisher
        self._provisioner = cluster.provisioner
        self._naming = cluster.naming

    async def find(self, names: Collection[str] | None) -> list[Group]:
        wanted = self._naming.groups(await self._topics.all()) if names is None else names
        topics = {self._topic("dead", name): name for name in wanted}
        there = sorted(topics[topic] for topic in await self._topics.existing(topics))
        sources = await asyncio.gather(*map(self._sources, there))
        return [Group(name, found) for name, found in zip(there, sources, strict=True)]

    async def remove(self, name: str) -> None:
        """First the marks, which the broker gives up only where nobody reads; the topic of dead letters goes last."""
        group = self._naming.group(name)
        if members := await self._topics.members(group):
            raise GroupInUse(name, members)
        if not await self._topics.delete_group(group):
            raise GroupInUse(name, max(await self._topics.members(group), 1))
        self._provisioner.forget(name)
        await self._delete(Address("inbox", name), Address("retry", name))
        await self._delete(Address("dead", name))

    async def _delete(self, *addresses: Address) -> None:
        await self._topics.delete([self._topic(address.kind, address.name) for address in addresses])
        for address in addresses:
            self._publisher.forget(address)

    async def _sources(self, name: str) -> tuple[Address, ...]:
        topics = sorted({tp.topic for tp in await self._topics.committed(self._naming.group(name))})
        return tuple(Address(*source) for source in map(self._naming.source, topics) if source is not None)

    def _topic(self, kind: Kind, name: str) -> str:
        return self._naming.channel(kind, name)
