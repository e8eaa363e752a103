"""Breaks of a group's life: its consumers, what they hold, its replies and dead letters, its next release."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MEMORY, _CONSUMER = "eventkit/memory/adapter.py", "eventkit/memory/consumer.py"
_REDIS, _NATS = "adapters/eventkit_redis", "adapters/eventkit_nats"

GROUPS = (
    # its consumers
    Mutant(
        "finish what could not be moved",
        _CONSUMER,
        "                self._receive.unsettled(delivery, how, error)\n                return\n",
        "                self._receive.unsettled(delivery, how, error)\n",
        "D13",
    ),
    Mutant(
        "nobody is told of a copy that was refused",
        _CONSUMER,
        "                self._receive.unsettled(delivery, how, error)\n",
        "",
        "D13",
    ),
    Mutant(
        "redis: a flush waits for nothing",
        f"{_REDIS}/consume.py",
        "        async with asyncio.timeout(timeout):\n            await self._settler.drain()\n",
        "        pass\n",
        "D14",
        "redis",
    ),
    Mutant(
        "nats: a flush does not wait for copies",
        f"{_NATS}/consume.py",
        "            await self._settling.moved()\n            if not",
        "            if not",
        "D14",
        "nats",
    ),
    Mutant(
        "a pause stops nothing",
        _CONSUMER,
        "        self._paused = True\n",
        "        pass\n",
        "L14",
    ),
    Mutant(
        "redis: a pause stops nothing",
        f"{_REDIS}/consume.py",
        "    def pause(self) -> None:\n        self._going.clear()\n",
        "    def pause(self) -> None:\n        pass\n",
        "L14",
        "redis",
    ),
    Mutant(
        "nats: a pause stops nothing",
        f"{_NATS}/consume.py",
        'would only wait here."""\n        self._running.clear()\n',
        'would only wait here."""\n        return\n',
        "L14",
        "nats",
    ),
    Mutant(
        "hand over the next while the last is taken over",
        _CONSUMER,
        "            await self._receive.deliveries(batch)\n",
        "            self._loop.create_task(self._receive.deliveries(batch))\n",
        "S6",
    ),
    Mutant(
        "deliver as many as ever",
        _CONSUMER,
        "        self._in_flight = at_most\n        self.wake()\n",
        "        self.wake()\n",
        "S7",
    ),
    Mutant(
        "redis: deliver as many as ever",
        f"{_REDIS}/consume.py",
        "        self._in_flight = at_most\n        self._freed(0)\n",
        "        self._freed(0)\n",
        "S7",
        "redis",
    ),
    Mutant(
        "redis: a reader that waits for room does not hear that there is more",
        f"{_REDIS}/consume.py",
        "        self._in_flight = at_most\n        self._freed(0)\n",
        "        self._in_flight = at_most\n",
        "S7",
        "redis",
    ),
    Mutant(
        "nats: deliver as many as ever",
        f"{_NATS}/consume.py",
        "        self._sources.in_flight = at_most\n",
        "        pass\n",
        "S7",
        "nats",
    ),
    Mutant(
        "a consumer that ends pauses the others",
        _MEMORY,
        "        self._consumers.remove(consumer)\n",
        "        self._consumers.remove(consumer)\n        for other in self._consumers:\n            other.pause()\n",
        "L9",
    ),
    Mutant(
        "read only so many groups",
        "eventkit/running.py",
        "for consuming in self._consuming.values()])\n",
        "for consuming in list(self._consuming.values())[:40]])\n",
        "S1",
    ),
    # what it reads
    Mutant(
        "a physical name lies in our namespace",
        "eventkit/names.py",
        "        return physical if physical is not None else self.join(name, SUFFIXES[kind])\n",
        "        return self.join(name if physical is None else physical, SUFFIXES[kind])\n",
        "R13",
    ),
    Mutant(
        "a group is there, whatever it reads",
        _MEMORY,
        "            if queue is None or unread:\n",
        "            if queue is None:\n",
        "C3",
    ),
    Mutant(
        "redis: a group is there, whatever it reads",
        f"{_REDIS}/topology.py",
        '        yield _Need(f"group {group.name!r} on {source}", keys.stream(source), name, begun, begin, True)\n',
        '        yield _Need(f"group {group.name!r} on {source}", keys.stream(source), "", begun, begin, True)\n',
        "C3",
        "redis",
    ),
    Mutant(
        "nats: a group is there, whatever it reads",
        f"{_NATS}/topology.py",
        '            elif address.kind != "dead":\n',
        '            elif address.kind == "retry":\n',
        "C3",
        "nats",
    ),
    # its replies
    Mutant(
        "all replies come to one address",
        _MEMORY,
        "            name = self._naming.channel(address.kind, address.name, address.physical)\n",
        '            own = address.name.partition(".")[0] if address.kind == "reply" else address.name\n'
        "            name = self._naming.channel(address.kind, own, address.physical)\n",
        "Q4",
    ),
    Mutant(
        "redis: replies are read from the oldest on",
        f"{_REDIS}/replies.py",
        "        if newest:\n            self._last = newest[0][0]\n",
        "",
        "Q4",
        "redis",
    ),
    # its dead letters, and its removal
    Mutant(
        "show the newest dead letter first",
        _MEMORY,
        "in list(self._store.dead.get(name, {}).items()):\n",
        "in reversed(self._store.dead.get(name, {}).items()):\n",
        "F22",
    ),
    Mutant(
        "remove all dead letters for one",
        _MEMORY,
        "self._store.dead.get(self._name(delivery.message.address), {}).pop(delivery.position, None)\n",
        "self._store.dead.get(self._name(delivery.message.address), {}).clear()\n",
        "F22",
    ),
    Mutant(
        "redis: the dead letters go first when a group is removed",
        f"{_REDIS}/groups.py",
        '*(command("UNLINK", key) for key in rest))\n    await link.ask(command("UNLINK", own[2]))\n',
        'command("UNLINK", own[2]))\n    await link.ask(*(command("UNLINK", key) for key in rest))\n',
        "L15",
        "redis",
    ),
    Mutant(
        "nats: the dead letters go first when a group is removed",
        f"{_NATS}/groups.py",
        "        for stream in (inbox, retry, dead):\n",
        "        for stream in (dead, retry, inbox):\n",
        "L15",
        "nats",
    ),
    # its next release
    Mutant(
        "a group reads what the release that came last reads, and no more",
        _MEMORY,
        "        for source in item.sources:\n            channel = self._name(source)\n            log",
        "        for channel, those in store.subscribers.items():\n"
        "            if queue in those and channel not in [self._name(source) for source in item.sources]:\n"
        "                those.remove(queue)\n"
        "        for source in item.sources:\n            channel = self._name(source)\n            log",
        "R12",
    ),
    Mutant(
        "nats: a stream that the next release sets otherwise is made anew",
        f"{_NATS}/topology.py",
        '                await self._exchange.api(f"STREAM.UPDATE.{name}", {**found, **changed})\n',
        '                await self._exchange.api(f"STREAM.DELETE.{name}")\n'
        '                await self._exchange.api(f"STREAM.CREATE.{name}", wanted)\n',
        "V1",
        "nats",
    ),
)
"""By what a group has and does."""
