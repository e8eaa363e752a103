"""Silence: that nothing runs in a process while one message, which may be the one that kills it, runs alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from eventkit.lanes import Lanes


class Silence:
    """That nothing runs in a process, of all the services that were started together."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        """Held by whoever asks for silence: one at a time."""
        self._lanes: list[Lanes[Any]] = []
        self._holds = 0
        self._alone = False
        self._changed = asyncio.Event()

    def join(self, lanes: Lanes[Any]) -> None:
        """These keep still, too, when they are asked to."""
        self._lanes.append(lanes)
        lanes.on_quiet = self._changed.set

    @property
    def asked(self) -> bool:
        """Does somebody ask for it now, or keep it?"""
        return self._holds > 0

    @property
    def there(self) -> bool:
        """Does nothing run at this moment?"""
        return not self._alone and not any(lanes.running for lanes in self._lanes)

    def hold(self) -> None:
        """Begin nothing until `free`."""
        self._holds += 1
        for lanes in self._lanes:
            lanes.hold()

    def free(self) -> None:
        self._holds -= 1
        if not self._holds:
            for lanes in self._lanes:
                lanes.free()

    async def come(self) -> None:
        """Until nothing runs any more; to be called within `hold`."""
        while not self.there:
            self._changed.clear()
            await self._changed.wait()

    def begin(self) -> Callable[[], None]:
        """One runs alone, until what is returned is called; twice is harmless."""
        self.hold()
        self._alone = True
        ended = False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                self._alone = False
                self._changed.set()
                self.free()

        return end
