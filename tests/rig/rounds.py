"""The rounds: what is killed, and what else goes wrong at the same time, drawn from a seed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from tests.rig.members import Member


class Way(Protocol):
    """The way to the broker, as in tests/proxy.py."""

    def cut(self) -> None: ...
    def refuse(self) -> None: ...
    def stall(self) -> None: ...
    def forget(self) -> None: ...
    def mend(self) -> None: ...


class Killable(Protocol):
    """A broker of the rig's own: one server, or a cluster of which the leader is killed."""

    name: str
    lease: float
    young: float

    @property
    def proxy(self) -> Way | None: ...
    def kill(self) -> None: ...
    def start(self) -> None: ...
    def restart(self) -> None: ...


class Round(NamedTuple):
    """One round: something is killed with -9, and perhaps something else goes wrong around that."""

    kills: str
    also: str
    """Empty: nothing."""
    place: int
    """Which replica or producer, of those that there are."""
    down: float
    """Seconds until what was killed is started again."""
    lasts: float
    """Seconds that the other failure lasts."""
    rest: float
    """Seconds until the next round."""

    def __str__(self) -> str:
        return f"kill {self.kills}" + (f", {self.also} for {self.lasts:.1f} s" if self.also else "")


STOP = 60.0
"""Seconds within which a process ends that is told to."""


class Weights(NamedTuple):
    """How often each is drawn."""

    kills: Mapping[str, int]
    also: Mapping[str, int]


ONE_SERVER = Weights(
    {"replica": 4, "replicas": 1, "producer": 2, "broker": 4},
    {"": 6, "pause": 3, "stop": 1, "cut": 1, "refuse": 1, "stall": 1, "forget": 1, "restart": 1},
)
CLUSTER = Weights({"leader": 8, "replica": 1, "producer": 1}, {"": 6, "pause": 3, "stop": 1})
"""There is no proxy of ours between a client and the servers that a cluster tells it of."""


def draw(seed: int, count: int, lease: float, weights: Weights = ONE_SERVER) -> list[Round]:
    """The same for the same seed."""
    rng = random.Random(seed)

    def one() -> Round:
        (kills,) = rng.choices(list(weights.kills), list(weights.kills.values()))
        (also,) = rng.choices(list(weights.also), list(weights.also.values()))
        if kills == "broker" and also == "restart":
            also = "cut"
        lasts = rng.choice((rng.uniform(0.1, 1.0), rng.uniform(lease, lease * 1.6)))
        return Round(kills, also, rng.randrange(100), rng.uniform(0.0, 1.0), lasts, rng.uniform(0.3, 2.5))

    return [one() for _ in range(count)]


def play(round_: Round, broker: Killable, members: Sequence[Member]) -> None:
    """Returns when all is as it was: what was killed is started again, nothing is paused or cut off."""
    with _also(round_, broker, members):
        _kill(round_, broker, members)
    time.sleep(round_.rest)


def _kill(round_: Round, broker: Killable, members: Sequence[Member]) -> None:
    if round_.kills in ("broker", "leader"):
        broker.kill()
        time.sleep(round_.down)
        broker.start()
        return
    role = "producer" if round_.kills == "producer" else "replica"
    there = [member for member in members if member.role == role]
    chosen = there if round_.kills == "replicas" else [there[round_.place % len(there)]]
    for member in chosen:
        member.kill()
    time.sleep(round_.down)
    for member in chosen:
        member.start()


@contextmanager
def _also(round_: Round, broker: Killable, members: Sequence[Member]) -> Iterator[None]:
    """The other failure begins before the kill and ends after it."""
    began = time.monotonic()
    other = members[(round_.place + 1) % len(members)]
    life = other.life
    ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "pause": (other.pause, other.resume),
        "stop": (other.ask_to_stop, lambda: _start_again(other, life)),
        "restart": (broker.restart, lambda: None),
    }
    if not round_.also:
        yield
        return
    if round_.also in ways:
        begin, end = ways[round_.also]
    else:
        way = broker.proxy
        assert way is not None
        begin, end = getattr(way, round_.also), way.mend
    begin()
    try:
        yield
        time.sleep(max(0.0, began + round_.lasts - time.monotonic()))
    finally:
        end()


def _start_again(member: Member, life: str) -> None:
    if member.life == life:  # else it was killed meanwhile, and lives again
        if not member.ended(STOP):
            raise AssertionError(f"{life} did not end within {STOP:g} s of SIGTERM")
        member.start()
