"""What is to be sent, piece by piece: one JSON many times, or JSON lines from standard input as they come."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from eventkit.threads import Threads

BATCH = 500
_BYTES = 1 << 18
_BURST = 0.1
"""Seconds whose share of a rate may go out at once."""


class Said(NamedTuple):
    """One message, as it was said."""

    line: int | None
    """Of standard input, from 1. None: it is the command line's."""
    text: str | bytes


def many(text: str, count: int) -> AsyncIterator[Sequence[Said]]:
    """One JSON, so many times."""
    return _many(Said(None, text), count)


async def _many(said: Said, count: int) -> AsyncIterator[Sequence[Said]]:
    while count > 0:
        yield [said] * min(count, BATCH)
        count -= BATCH


class StandardInput:
    """The lines of standard input, in batches of what is there: a live stream is not waited for."""

    def __init__(self) -> None:
        self._number = sys.stdin.fileno()
        found = os.fstat(self._number)
        self.size = found.st_size if stat.S_ISREG(found.st_mode) else None
        """Bytes, where that is known."""
        self.read = 0
        """Bytes so far."""

    async def lines(self) -> AsyncIterator[Sequence[Said]]:
        """Empty lines are passed over, and counted."""
        # a daemon thread: Ctrl-C must not wait for a line
        threads = Threads("standard input", 1)
        rest, line = b"", 0
        try:
            while True:
                piece = await threads.run(os.read, self._number, _BYTES)
                assert isinstance(piece, bytes)
                self.read += len(piece)
                *lines, rest = (rest + piece).split(b"\n") if piece else (rest, b"")
                found = []
                for text in lines:
                    line += 1
                    said = text.removeprefix(b"\xef\xbb\xbf").strip() if line == 1 else text.strip()
                    if said:
                        found.append(Said(line, said))
                for start in range(0, len(found), BATCH):
                    yield found[start : start + BATCH]
                if not piece:
                    return
        finally:
            threads.stop()


async def paced(batches: AsyncIterator[Sequence[Said]], rate: float | None) -> AsyncIterator[Sequence[Said]]:
    """No more than `rate` a second. None: as fast as they are taken."""
    if rate is None:
        async for batch in batches:
            yield batch
        return
    clock = asyncio.get_running_loop().time
    burst = max(1.0, rate * _BURST)
    began, allowed = clock(), 1.0
    async for batch in batches:
        left = list(batch)
        while left:
            now = clock()
            allowed = min(burst, allowed + (now - began) * rate)
            began = now
            if allowed < 1:
                await asyncio.sleep((1 - allowed) / rate)
                continue
            take = int(allowed)
            yield left[:take]
            allowed -= min(take, len(left))
            left = left[take:]
