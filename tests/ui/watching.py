"""A viewer of the page that is no browser: what the server says, gathered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx


class Watching:
    """The frames of one viewer."""

    def __init__(self) -> None:
        self.first: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.frames: list[bytes] = []
        self.now: dict[str, Any] = {}

    def hear(self, event: str, data: str) -> None:
        told = json.loads(data)
        if event == "all":
            self.first, self.rows = told, []
        self.now |= told
        self.rows += told["rows"]
        self.frames.append(data.encode())

    def group(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(group for group in self.now["groups"] if group["name"] == name)
        return found

    def stream(self, type_: str) -> dict[str, Any]:
        found: dict[str, Any] = next(stream for stream in self.now["streams"] if stream["type"] == type_)
        return found

    async def until(self, true: Callable[[], object], what: str, seconds: float = 30) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not true():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"it did not come about: {what}; now {json.dumps(self.now)[:2000]}") from None


@asynccontextmanager
async def watching(client: httpx.AsyncClient) -> AsyncIterator[Watching]:
    """All addresses are followed when it begins."""
    found = Watching()

    async def read() -> None:
        async with client.stream("GET", "events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            event = ""
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    event = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    found.hear(event, line.removeprefix("data: "))

    task = asyncio.create_task(read())
    try:
        await found.until(lambda: found.first, "the first frame")
        await found.until(lambda: not any(one["problem"] for one in found.now["addresses"]), "all is followed")
        yield found
    finally:
        task.cancel()
        await asyncio.wait([task])
