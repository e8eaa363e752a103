"""A replica of the rig's service: `python -m tests.rig.replica FOLDER LIFE`."""

from __future__ import annotations

import asyncio

from eventkit import Bus
from tests.rig.journal import Journal
from tests.rig.process import main
from tests.rig.work import service


async def _work(bus: Bus, journal: Journal, stop: asyncio.Event) -> None:
    async with bus.run(service(journal)) as running:
        journal.write("ready")
        await stop.wait()
        health = running.health()
        journal.write("green" if health.ok else "red", str(health).replace("\n", " "))


if __name__ == "__main__":
    main(_work)
