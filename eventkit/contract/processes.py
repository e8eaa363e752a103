"""Replicas in processes of their own, from the side of the check that kills or pauses them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from eventkit.contract.checks import Faults, eventually


class Replica:
    """A running `eventkit.contract.replica`."""

    def __init__(self, process: asyncio.subprocess.Process, faults: Faults) -> None:
        self._process, self._faults = process, faults
        self.told: list[str] = []
        """What it has written, line by line."""

    def numbers(self, word: str) -> set[int]:
        """Of the work that it `began`, `failed` or `ended`."""
        return {int(line.split()[1]) for line in self.told if line.startswith(f"{word} ")}

    @property
    def dead(self) -> bool:
        return self._process.returncode is not None

    def go_on(self) -> None:
        """Let what waits end."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go on\n")

    async def pause(self) -> None:
        """It stands still until `resume`: as in a virtual machine that is moved, or swapped out."""
        await asyncio.to_thread(self._faults.pause, self._process.pid)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """End it as the kernel does when memory is short. What it has written is kept."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.told.append(line.decode().strip())


@asynccontextmanager
async def replica(
    faults: Faults, namespace: str, *, may_die: bool = False, quarantine_after: int | None = None
) -> AsyncIterator[Replica]:
    """A replica that is ready, killed at the end if it still runs. `may_die`: it may have died by itself before."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EVENTKIT_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "eventkit.contract.replica",
        *([] if quarantine_after is None else [str(quarantine_after)]),
        env={**clean, **faults.environment(namespace)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    found = Replica(process, faults)
    reading = asyncio.ensure_future(found.read())
    try:
        await eventually(lambda: "ready" in found.told or reading.done(), "the replica is ready", 60.0)
        assert "ready" in found.told or may_die, "the replica ended at its start"
        yield found
    finally:
        await found.kill()
        await reading
