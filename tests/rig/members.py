"""The rig's processes: started, killed, paused, and started again, each life with a name of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


class Member:
    """A process that is started again whenever it is killed."""

    def __init__(self, role: str, place: int, folder: Path, environment: Mapping[str, str]) -> None:
        self.role = role
        self._name = f"{role}-{place}"
        self._folder = folder
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EVENTKIT_")}
        self._environment = {**clean, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self.lives = 0

    @property
    def life(self) -> str:
        return f"{self._name}.{self.lives}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Begin its next life, unless it is alive."""
        if self.running:
            return
        self.lives += 1
        with (self._folder / f"{self.life}.err").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"tests.rig.{self.role}", str(self._folder), self.life],
                env=self._environment,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
            )

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        self._send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(30)

    def pause(self) -> None:
        """It stands still until `resume`: as in a virtual machine that is moved, or swapped out."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def ask_to_stop(self) -> None:
        """In order, as a deploy does."""
        self._send(signal.SIGTERM)

    def ended(self, within: float) -> bool:
        """Has it ended by itself, at the latest after so many seconds?"""
        if self._process is None:
            return True
        ends = time.monotonic() + within
        while self._process.poll() is None and time.monotonic() < ends:
            time.sleep(0.02)
        return self._process.poll() is not None

    def end(self) -> None:
        """Whatever it does, it is gone after this."""
        self.resume()
        self.kill()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
