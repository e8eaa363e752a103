"""The start and the end of a process of the rig: connected as soon as the broker can be reached, ended by SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

from eventkit import Bus, connect, discovery
from eventkit.errors import EventkitError
from eventkit.processes import loop
from eventkit.settings import read_settings
from tests.rig.journal import Journal
from tests.rig.work import SERVICE

Work = Callable[[Bus, Journal, asyncio.Event], Awaitable[None]]
"""Works on an open bus until it is told to stop."""


def main(work: Work) -> None:
    """`python -m ... FOLDER LIFE`."""
    folder, life = Path(sys.argv[1]), sys.argv[2]
    with asyncio.Runner(loop_factory=loop.factory(read_settings(discovery.installed()).loop)) as runner:
        runner.run(_main(work, Journal(folder, life)))


async def _main(work: Work, journal: Journal) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    threading.Thread(target=_end_with_its_owner, daemon=True).start()
    journal.write("started")
    while not stop.is_set():
        try:
            async with connect(service=SERVICE) as bus:
                await work(bus, journal, stop)
        except EventkitError as error:  # a supervisor would start it again
            journal.write("again", type(error).__name__)
            sys.stderr.write(f"{error!r}, {error.__cause__!r}\n")
            await asyncio.sleep(0.2)
    journal.write("stopped")


def _end_with_its_owner() -> None:
    sys.stdin.read()
    os._exit(0)
