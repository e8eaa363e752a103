"""A replica of the rig's service: `python -m tests.rig.replica FOLDER LIFE`."""

from __future__ import annotations

import asyncio

from eventkit import Bus
from tests.rig.journal import Journal
from tests.rig.process import main
from tests.rig.work import service

GREEN = 60.0
"""Seconds within which health is green, all being well: a client that a dead broker has left hanging needs some."""


async def _work(bus: Bus, journal: Journal, stop: asyncio.Event) -> None:
    async with bus.run(service(journal)) as running:
        journal.write("ready")
        await stop.wait()
        ends = asyncio.get_running_loop().time() + GREEN
        while not (health := running.health()).ok and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(0.1)  # a broker that answers late is red for a moment
        journal.write("green" if health.ok else "red", str(health).replace("\n", " "))


if __name__ == "__main__":
    main(_work)
