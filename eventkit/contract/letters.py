"""Dead letters, as a check reads them."""

from __future__ import annotations

import asyncio
import time

from eventkit.adapter import Address, Message
from eventkit.bus import Bus
from eventkit.contract.checks import Adapters
from eventkit.contract.receiving import contents, started
from eventkit.letter import DeadLetter


async def dead_letters(
    backend: Adapters, namespace: str, group: str, count: int, within: float = 15.0
) -> list[Message]:
    """The group's dead letters, oldest first, once there are `count`; AssertionError if there are more or fewer."""
    ends = time.monotonic() + within
    async with started(backend, namespace) as adapter:
        while True:
            found = [delivery.message for delivery in await contents(adapter, Address("dead", group))]
            if len(found) >= count:
                break
            assert time.monotonic() < ends, f"{len(found)} dead letters of {group} after {within:g} s, not {count}"
            await asyncio.sleep(0.02)
    assert len(found) == count, f"{len(found)} dead letters of {group}, not {count}: {[m.key for m in found]}"
    return found


async def listed(b: Bus, group: str, count: int, within: float = 15.0) -> list[DeadLetter]:
    """The group's dead letters as people list them, once there are so many; AssertionError if there are more."""
    ends = time.monotonic() + within
    while True:
        found = [letter async for letter in b.dead_letters(group).list()]
        if len(found) == count:
            return found
        assert len(found) < count, f"{len(found)} dead letters of {group}, not {count}: {[one.id for one in found]}"
        assert time.monotonic() < ends, f"{len(found)} dead letters of {group} after {within:g} s, not {count}"
        await asyncio.sleep(0.05)
