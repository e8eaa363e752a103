"""Threads for plain functions."""

from __future__ import annotations

import asyncio
import threading

from eventkit.threads import Threads


def test_what_was_given_up_before_it_began_does_not_run() -> None:
    ran: list[str] = []
    go = threading.Event()

    async def main() -> None:
        threads = Threads("test", 1)
        first = asyncio.ensure_future(threads.run(go.wait))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(threads.run(ran.append, "given up"))
        await asyncio.sleep(0)
        second.cancel()
        third = asyncio.ensure_future(threads.run(ran.append, "wanted"))
        await asyncio.sleep(0)
        go.set()
        async with asyncio.timeout(5):
            await asyncio.gather(first, third)
        threads.stop()

    asyncio.run(main())
    assert ran == ["wanted"]
