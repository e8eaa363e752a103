"""One run on one broker: processes under load, rounds of kills, a calm end, and what the checker counts."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Protocol

from eventkit import Bus
from eventkit.adapter import Adapter
from eventkit.contract.checks import fresh_namespace
from eventkit.errors import UndecodableMessage
from tests.rig.checker import About, Checker, Count
from tests.rig.journal import Journal, Reader
from tests.rig.members import Member
from tests.rig.replica import GREEN
from tests.rig.rounds import ONE_SERVER, Killable, Round, Weights, draw, play
from tests.rig.work import AUDIT, COMMAND, SERVICE, Do, Told, service

REPLICAS, PRODUCERS = 2, 2
READY = 120.0
"""Seconds that a process may take from its start until it works."""
BEHIND, CATCH_UP = 500, 10.0
"""So many messages may be under way when a round begins; more are given so many seconds to become fewer."""
FLOWS = 120.0
"""Seconds after a failure within which publishing and handling go on."""
ENDED = GREEN + 40.0
"""Seconds after SIGTERM within which a process has ended, at the end of a run."""
PATIENCE = 45.0
"""Seconds without any progress, all being well, after which what is missing will not come any more, if the broker has
nothing for the groups: it is lost."""
SLOW = 180.0
"""Seconds without any progress, though the broker has something for them, after which we wait no more. That is left
over: no loss, and no success either."""

Say = Callable[[str], object]


class Target(Killable, Protocol):
    """What a run needs of a broker."""

    def adapter(self, namespace: str, /) -> Adapter: ...
    def environment(self, namespace: str, /) -> Mapping[str, str]: ...


@dataclass
class Result:
    """One run."""

    name: str
    seed: int
    rounds: int
    seconds: float
    drained: float
    """Seconds from the last failure until all that was acknowledged was handled."""
    count: Count
    kills: Mapping[str, int] = field(default_factory=dict)
    also: Mapping[str, int] = field(default_factory=dict)
    overtakes: bool = True
    """Does the broker promise no order of a key while replicas come and go?"""
    left: int = 0
    """Messages that the broker still had for the groups when nothing moved any more."""
    red: list[str] = field(default_factory=list)
    """Replicas whose health was red at the end."""

    @property
    def lost(self) -> int:
        """Acknowledged, not handled, and not on the broker any more either: at least so many."""
        return max(len(self.count.lost) - self.left, 0)

    @property
    def good(self) -> bool:
        return self.count.good and not self.red and not self.left


def run(
    target: Target,
    seed: int,
    rounds: int,
    say: Say,
    *,
    weights: Weights = ONE_SERVER,
    calm: float = 3.0,
    keep: Path | None = None,
    within: float = inf,
) -> Result:
    """`calm`: seconds of load after the last failure. `keep`: a folder for the files that the processes write; None:
    they are removed unless something is wrong, and then their folder is said. `within`: seconds after which no further
    round begins."""
    folder = keep or Path(tempfile.mkdtemp(prefix=f"eventkit-rig-{target.name}-"))
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{target.name}: seed {seed}, {rounds} rounds; {folder}")
    result = _Run(target, folder, say).play(seed, draw(seed, rounds, target.lease, weights), calm, within)
    if result.good and keep is None:
        shutil.rmtree(folder)
    return result


class _Run:
    def __init__(self, target: Target, folder: Path, say: Say) -> None:
        self._target = target
        self._say = say
        self._folder = folder
        self._namespace = fresh_namespace()
        self._across = target.adapter("").capabilities.key_order_across_replicas
        environment = target.environment(self._namespace)
        self._replicas = [Member("replica", place, folder, environment) for place in range(REPLICAS)]
        self._producers = [Member("producer", place, folder, environment) for place in range(PRODUCERS)]
        self._reader = Reader(folder)
        self._checker = Checker()

    def play(self, seed: int, rounds: list[Round], calm: float, within: float) -> Result:
        began = time.monotonic()
        played: list[Round] = []
        with self._members() as members:
            time.sleep(self._target.young)
            for at, round_ in enumerate(rounds):
                if time.monotonic() > began + within:
                    break
                self._flows()
                self._say(
                    f"{self._target.name}: round {at + 1} of {len(rounds)}: {round_}; "
                    f"{len(self._checker.acked)} acknowledged, {len(self._checker.missing())} under way"
                )
                play(round_, self._target, members)
                played.append(round_)
            healed = time.monotonic()
            self._ready(members)
            self._wait_out()
            quiet = time.time()
            time.sleep(calm)
            self._stop(self._producers)
            letters = asyncio.run(self._drain())
            drained = time.monotonic() - healed
            self._stop(self._replicas)
            # after they have given back what they held: on some brokers that is not counted while they hold it
            left = asyncio.run(self._left()) if self._checker.missing() else 0
        count = self._checker.count(letters, quiet, self._across)
        return Result(
            self._target.name,
            seed,
            len(played),
            time.monotonic() - began,
            drained,
            count,
            Counter(round_.kills for round_ in played),
            Counter(round_.also for round_ in played if round_.also),
            not self._across,
            left,
            [f"{life}: {why}" for life, why in self._checker.words["red"].items() if life in self._last],
        )

    @contextmanager
    def _members(self) -> Iterator[list[Member]]:
        members = [*self._replicas, *self._producers]
        try:
            for member in self._replicas:
                member.start()
            self._ready(self._replicas)
            for member in self._producers:
                member.start()
            self._ready(self._producers)
            yield members
        finally:
            for member in members:
                member.end()

    def _read(self) -> None:
        self._checker.take(self._reader.news())

    def _ready(self, members: list[Member]) -> None:
        ends = time.monotonic() + READY
        while True:
            self._read()
            late = [member.life for member in members if member.life not in self._checker.words["ready"]]
            if not late:
                return
            assert time.monotonic() < ends, f"not ready after {READY:g} s: {', '.join(late)}"
            gone = [member.life for member in members if not member.running]
            assert not gone, f"ended by themselves: {', '.join(gone)}"
            time.sleep(0.05)

    def _flows(self) -> None:
        """Until something new was acknowledged and something new was handled: each round strikes a system at work."""
        checker = self._checker
        self._read()
        acknowledged, handled = len(checker.acked), checker.handled
        ends = time.monotonic() + FLOWS
        caught_up = time.monotonic() + CATCH_UP
        while (
            len(checker.acked) == acknowledged
            or checker.handled == handled
            or (len(checker.missing()) > BEHIND and time.monotonic() < caught_up)
        ):
            what = f"{len(checker.acked) - acknowledged} acknowledged, {checker.handled - handled} handled"
            assert time.monotonic() < ends, f"{FLOWS:g} s after the last failure nothing goes on: {what}"
            time.sleep(0.05)
            self._read()

    def _wait_out(self) -> None:
        """Until what the failures left behind has come back: then order is promised on every broker. Not at all where
        it always is."""
        ends = time.monotonic() + (0 if self._across else self._target.lease * 2 + 1)
        while time.monotonic() < ends:
            time.sleep(0.1)
        self._read()

    def _stop(self, members: list[Member]) -> None:
        for member in members:
            member.ask_to_stop()
        for member in members:
            assert member.ended(ENDED), f"{member.life} did not end within {ENDED:g} s of SIGTERM"
        self._read()
        self._last = {member.life for member in members}

    async def _drain(self) -> list[About]:
        """Until nothing is missing, or nothing changes any more; all dead letters."""
        since, before = time.monotonic(), -1
        while time.monotonic() < since + PATIENCE or (time.monotonic() < since + SLOW and await self._left()):
            await asyncio.sleep(0.1)
            self._read()
            left = len(self._checker.missing())
            if left != before:
                since, before = time.monotonic(), left
            if not left:
                break
        while True:
            letters = await self._letters()
            if self._checker.waiting_letters() <= set(letters) or time.monotonic() > since + PATIENCE:
                return letters
            await asyncio.sleep(0.5)

    async def _left(self) -> int:
        """What waits on the broker."""
        groups = [group for group, _ in service(Journal(self._folder, "rig")).groups().values()]
        async with Bus(self._target.adapter(self._namespace), source="rig") as bus:
            found = [await bus.adapter.measure(group) for group in groups]
        return sum((one.ready or 0) + (one.in_flight or 0) + (one.delayed or 0) for one in found)

    async def _letters(self) -> list[About]:
        found = []
        async with Bus(self._target.adapter(self._namespace), source="rig") as bus:
            for group in (SERVICE, AUDIT):
                async for letter in bus.dead_letters(group).list():
                    try:
                        told = letter.read(Told) if letter.type == "Told" else letter.read(Do)
                        what = told.what if isinstance(told, Told) else COMMAND
                        found.append(About(group, what, told.key, told.number))
                    except UndecodableMessage:
                        found.append(About(group, f"{letter.type} {letter.reason}", letter.key or "", -1))
        return found
