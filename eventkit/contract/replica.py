"""A replica in a process of its own, to be killed or paused: `python -m eventkit.contract.replica`.

It connects as EVENTKIT_* says, writes a line for all that happens, and goes on with what waits when it reads a line.
An argument is its service's `quarantine_after`; none: never.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading

from eventkit import discovery
from eventkit.connecting import connect
from eventkit.contract.work import worker
from eventkit.processes import loop
from eventkit.settings import read_settings


def _tell(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def _run() -> None:
    running = asyncio.get_running_loop()
    go_on = asyncio.Event()

    def read() -> None:
        for _ in sys.stdin:
            running.call_soon_threadsafe(go_on.set)
        os._exit(0)  # whoever started this is gone

    quarantine_after = int(sys.argv[1]) if len(sys.argv) > 1 else None
    async with connect(service="replica") as bus, bus.run(worker(_tell, go_on, quarantine_after)):
        threading.Thread(target=read, daemon=True).start()
        _tell("ready")
        await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop.factory(read_settings(discovery.installed()).loop)) as runner:
        runner.run(_run())
