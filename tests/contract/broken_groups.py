"""Adapters that each break one promise about groups: which there are, who reads them, how they go away."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from eventkit.adapter import Address, Backlog, Group
from tests.contract.broken import Broken


class ListsOtherNamespaces(Broken):
    faults = ("C2",)

    async def groups(self, names: Collection[str] | None = None, /) -> Sequence[Group]:
        found = list(await super().groups(names))
        return found if names is not None else [*found, Group("of.another", ())]


class ListsWhatIsNotThere(Broken):
    """Believes whatever name it is given."""

    faults = ("C2", "L13")

    async def groups(self, names: Collection[str] | None = None, /) -> Sequence[Group]:
        return await super().groups(names) if names is None else [Group(name, ()) for name in sorted(names)]


class ForgetsWhatTheyRead(Broken):
    faults = ("C2",)

    async def groups(self, names: Collection[str] | None = None, /) -> Sequence[Group]:
        return [Group(group.name, group.sources[:1]) for group in await super().groups(names)]


class CountsThoseThatWere(Broken):
    """As one that asks a list from which nobody is taken out."""

    faults = ("L12",)
    most = 0

    async def measure(self, group: Group, /) -> Backlog:
        found = await super().measure(group)
        type(self).most = max(self.most, found.consumers or 0)
        return replace(found, consumers=self.most)


class CountsItsOwnReadersAlone(Broken):
    faults = ("L12",)

    async def measure(self, group: Group, /) -> Backlog:
        return replace(await super().measure(group), consumers=len(self._consumers))


class KeepsInFlightWhatNobodyHolds(Broken):
    """As a broker that waits for leases to end."""

    faults = ("L12",)

    async def measure(self, group: Group, /) -> Backlog:
        found = await super().measure(group)
        return replace(found, ready=0, in_flight=(found.ready or 0) + (found.in_flight or 0))


class MixesItsSources(Broken):
    faults = ("L12",)

    async def measure(self, group: Group, /) -> Backlog:
        found = await super().measure(group)
        turned = dict(zip(found.sources, reversed(list(found.sources.values())), strict=True))
        return replace(found, sources=turned)


class RemovesWhatIsRead(Broken):
    faults = ("L13",)

    async def disband(self, name: str, /) -> None:
        queue = self._store.queues.get(self._naming.group(name))
        readers, kept = (queue.consumers, list(queue.consumers)) if queue is not None else ([], [])
        readers.clear()
        await super().disband(name)
        readers.extend(kept)


class RefusesAndRemoves(Broken):
    """Its first steps come before it looks."""

    faults = ("L13",)

    async def disband(self, name: str, /) -> None:
        self._store.dead.get(self._name(Address("dead", name)), {}).clear()
        await super().disband(name)


class LeavesTheInbox(Broken):
    faults = ("L13",)

    async def disband(self, name: str, /) -> None:
        inbox = self._name(Address("inbox", name))
        there = inbox in self._store.subscribers
        await super().disband(name)
        if there:
            self._store.subscribers[inbox] = [next(iter(self._store.queues.values()))]


class LeavesWhatWaits(Broken):
    """The queue goes on to fill, and is there when the group is made again."""

    faults = ("L13",)

    async def disband(self, name: str, /) -> None:
        queue = self._store.queues.get(self._naming.group(name))
        kept = list(queue.ready) if queue is not None and not queue.consumers else None
        await super().disband(name)
        if kept is not None:
            left = self._store.queues.setdefault(self._naming.group(name), type(queue)())  # type: ignore[operator]
            left.ready.extend(kept)


class LeavesDeadLetters(Broken):
    faults = ("L13",)

    async def disband(self, name: str, /) -> None:
        dead = self._name(Address("dead", name))
        letters = self._store.dead.get(dead)
        await super().disband(name)
        if letters is not None:
            self._store.dead[dead] = letters


class TakesItsTopics(Broken):
    """And with them what other groups have waiting."""

    faults = ("L13",)

    async def disband(self, name: str, /) -> None:
        await super().disband(name)
        for queue in self._store.queues.values():
            queue.ready.clear()
