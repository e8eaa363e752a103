"""What a check is, and what one is given."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from eventkit.adapter import Adapter, Group
from eventkit.bus import Bus

_count = itertools.count(1)


class Adapters(Protocol):
    """Whatever adapters can be had of."""

    name: str

    def adapter(self, namespace: str, /) -> Adapter:
        """A new adapter, not started, connected to nothing yet."""
        ...


class Faults(Adapters, Protocol):
    """A broker that may be broken: nobody else uses it. Its calls block; checks make them in a thread."""

    lease: float
    """Seconds after which the messages of a process that is not heard of go to another, as its adapters are set."""

    def with_lease(self, seconds: float, /) -> Faults | None:
        """The same broker, with adapters that are set to another `lease`. None: it cannot be set."""
        ...

    def environment(self, namespace: str, /) -> Mapping[str, str]:
        """The EVENTKIT_* variables by which a process of its own comes to the same."""
        ...

    def kill(self) -> None:
        """End the broker at once, as a crash would. What is on its disk is kept."""
        ...

    def start(self) -> None:
        """Start it after `kill`; returns when it answers at its address."""
        ...

    def restart(self) -> None:
        """Shut it down in order and start it; returns when it answers."""
        ...

    def cut(self) -> None:
        """Break the connections of all clients, once."""
        ...

    def pause(self, pid: int, /) -> None:
        """Stop this process of ours with SIGSTOP, at a moment when it holds up nobody else by that: with the lock of a
        file, say, it would lock all out."""
        ...

    def take_away(self, namespace: str, group: Group, /) -> None:
        """Delete, behind the back of all that are connected, what the broker delivers to this group from: its queue,
        its consumer, its topic."""
        ...


class Backend(Adapters, Protocol):
    """One broker under test. Checks make what they need of it; each works in a namespace of its own."""

    def unreachable(self, namespace: str, /) -> Adapter | None:
        """An adapter whose broker does not answer at its address. None: there is no such thing here."""
        ...

    def faults(self) -> Faults | None:
        """A broker of this kind that may be broken. It may block while that is started. None: there is no such thing
        here."""
        ...


class Vacuous(Exception):
    """Raised by a check that says nothing about this backend, with the reason."""


class Refused(Exception):
    """Raised by a check that has seen the backend refuse, loudly, what its capabilities say it cannot do."""


@dataclass(frozen=True, slots=True)
class Check:
    """One behaviour."""

    id: str
    """As in docs/guarantees: D1, R3, ..."""
    sentence: str
    """What is promised."""
    run: Callable[[Backend], Awaitable[None]]
    """Raises AssertionError (or anything else) where the promise is broken."""


CHECKS: dict[str, Check] = {}
"""All checks by their id, in the order of the contract."""


def check(
    id: str, sentence: str
) -> Callable[[Callable[[Backend], Awaitable[None]]], Callable[[Backend], Awaitable[None]]]:
    """Declares a check. A test runner of any kind then calls `CHECKS[id].run(backend)`."""

    def register(function: Callable[[Backend], Awaitable[None]]) -> Callable[[Backend], Awaitable[None]]:
        assert id not in CHECKS, f"two checks are called {id}"
        CHECKS[id] = Check(id, sentence, function)
        return function

    return register


def fresh_namespace() -> str:
    """A namespace that no other check and no earlier run has used."""
    return f"c{os.getpid():x}{int(time.time()):x}{next(_count):x}"


async def breakable(backend: Backend) -> Faults:
    """A broker that this check may break. Vacuous where there is none."""
    found = await asyncio.to_thread(backend.faults)
    if found is None:
        raise Vacuous("there is no broker that could fail, or be left behind, apart from this process")
    return found


def bus(backend: Adapters, namespace: str, source: str = "contract") -> Bus:
    """A bus of its own on this backend: as another process would have."""
    return Bus(backend.adapter(namespace), source=source)


async def eventually(holds: Callable[[], object], what: str, within: float = 15.0) -> None:
    """Poll until it holds; AssertionError says `what` did not come within so many seconds."""
    ends = time.monotonic() + within
    while not holds():
        assert time.monotonic() < ends, f"not within {within:g} s: {what}"
        await asyncio.sleep(0.005)


async def stays(holds: Callable[[], object], what: str, during: float = 0.5) -> None:
    """It holds now and goes on to hold for so many seconds."""
    ends = time.monotonic() + during
    while time.monotonic() < ends:
        assert holds(), what
        await asyncio.sleep(0.01)


async def largest_message(backend: Backend) -> int:
    """How large a message this broker takes, in bytes."""
    adapter = backend.adapter(fresh_namespace())
    limits = await adapter.start(15.0)
    await adapter.stop(5.0)
    return limits.message_bytes
