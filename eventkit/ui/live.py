"""What the page is told, made once for all who watch, and kept within bounds."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from eventkit.adapter import Address, Group
from eventkit.bus import Bus
from eventkit.redacting import Redactor
from eventkit.ui import shown
from eventkit.ui.arrivals import Arrivals, stopped
from eventkit.ui.backlogs import Backlogs
from eventkit.ui.rates import Stream

KEPT = 500
"""Messages that who opens the page sees of what came before,"""
_BYTES = 4_000_000
"""unless they are larger than this in all."""
_LOOK = 0.5
"""Seconds between two looks at what came."""
_TURN, _MEASURE = 2, 4
"""Looks after which rates are turned over, and backlogs measured."""
_WAITING = 40
"""Frames that wait for a slow viewer; past them it is told everything anew."""


class Viewer:
    """One page that is open somewhere."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._some = asyncio.Event()
        self.behind = True
        """Is it to be told everything?"""
        self.ended = False

    def tell(self, frame: bytes) -> None:
        if self.behind:
            return
        if len(self._frames) >= _WAITING:
            self._frames.clear()
            self.behind = True
        else:
            self._frames.append(frame)
        self._some.set()

    def end(self) -> None:
        self.ended = True
        self._some.set()

    async def next(self) -> bytes | None:
        """None: it is behind, or it is over."""
        while not self._frames and not self.behind and not self.ended:
            self._some.clear()
            await self._some.wait()
        return self._frames.popleft() if self._frames and not self.ended else None


class Live:
    """Follows and measures for as long as it is open."""

    def __init__(
        self,
        bus: Bus,
        addresses: Sequence[Address],
        groups: Mapping[str, Sequence[Group]],
        anchors: Mapping[Stream, str],
        redactor: Redactor,
    ) -> None:
        """`groups`: by service. `anchors`: the messages that are known, and where the map has
        them."""
        self.run = secrets.token_hex(8)
        """Of this process: a page that finds another one begins anew."""
        self.csrf = secrets.token_urlsafe(32)
        """What a page must say to change anything; only a page of this origin can read it."""
        self._bus = bus
        self._anchors = anchors
        self._redactor = redactor
        self._arrivals = Arrivals(bus.adapter, addresses, anchors)
        self._addresses = addresses
        self._backlogs = Backlogs(bus.adapter, groups)
        self._viewers: set[Viewer] = set()
        self._rows: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._missed = 0
        self._measuring: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Watches until the end of the block."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._arrivals.follow()), loop.create_task(self._watch())]
        try:
            yield
        finally:
            self.close()
            for task in (*tasks, *([self._measuring] if self._measuring else [])):
                await stopped(task)

    def close(self) -> None:
        """Send all viewers away."""
        for viewer in self._viewers:
            viewer.end()

    @asynccontextmanager
    async def viewer(self) -> AsyncIterator[Viewer]:
        viewer = Viewer()
        self._viewers.add(viewer)
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)

    async def frames(self, viewer: Viewer) -> AsyncIterator[bytes]:
        """What this viewer is told, as server-sent events, until it is over."""
        while not viewer.ended:
            frame = await viewer.next()
            if frame is not None:
                yield frame
            elif not viewer.ended:
                viewer.behind = False
                yield self._all()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        looks, turned = 0, loop.time()
        while True:
            await asyncio.sleep(_LOOK)
            looks += 1
            rows, missed = self._look()
            told: dict[str, Any] = {"missed": missed} if missed else {}
            if looks % _TURN == 0:
                now = loop.time()
                self._arrivals.rates.turn(now - turned)
                turned = now
                told |= self._state()
            if looks % _MEASURE == 1 and (self._measuring is None or self._measuring.done()):
                self._measuring = loop.create_task(self._backlogs.measure())
            if rows or told:
                frame = _frame("news", told, rows)
                for viewer in self._viewers:
                    viewer.tell(frame)

    def _look(self) -> tuple[list[bytes], int]:
        """The messages that came, as JSON, and how many besides."""
        found, missed = self._arrivals.look()
        self._missed += missed
        rows = [_json(shown.row(arrival, self._redactor)) for arrival in found]
        for arrival, row in zip(found, rows, strict=True):
            self._rows.append((arrival.number, row))
            self._size += len(row)
        while len(self._rows) > KEPT or self._size > _BYTES:
            self._size -= len(self._rows.popleft()[1])
        return rows, missed

    def _state(self) -> dict[str, Any]:
        error = self._bus.adapter.error
        streams = [
            {
                "address": str(stream.address),
                "type": stream.type,
                "anchor": self._anchors.get(stream),
                "rate": seen.rate,
                "total": seen.total,
                "past": seen.past,
            }
            for stream, seen in self._arrivals.rates.streams.items()
        ]
        addresses = [
            {"address": str(address), "problem": self._arrivals.problems.get(address, "")}
            for address in self._addresses
        ]
        return {
            "broker": None if error is None else f"{type(error).__name__}: {error}",
            "streams": streams,
            "addresses": addresses,
            "groups": self._backlogs.as_json(),
        }

    def _all(self) -> bytes:
        about = {"run": self.run, "csrf": self.csrf, "missed": self._missed}
        return _frame("all", about | self._state(), [row for _, row in self._rows])


def _frame(event: str, told: Mapping[str, Any], rows: Sequence[bytes]) -> bytes:
    head = _json(told)
    joined = b'"rows":[' + b",".join(rows) + b"]"
    whole = head[:-1] + (b"," if told else b"") + joined + b"}"
    return b"event: " + event.encode() + b"\ndata: " + whole + b"\n\n"


def _json(value: Mapping[str, Any]) -> bytes:
    """In one line, as server-sent events need it."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()
