"""What a check is, and what one is given."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from eventkit.adapter import Adapter
from eventkit.bus import Bus

_count = itertools.count(1)


class Backend(Protocol):
    """One broker under test. Checks make what they need of it; each works in a namespace of its own."""

    name: str

    def adapter(self, namespace: str, /) -> Adapter:
        """A new adapter, not started, connected to nothing yet."""
        ...

    def unreachable(self, namespace: str, /) -> Adapter | None:
        """An adapter whose broker does not answer at its address. None: there is no such thing here."""
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


def bus(backend: Backend, namespace: str, source: str = "contract") -> Bus:
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
