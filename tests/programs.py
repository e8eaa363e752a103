"""Programs under test: started, read while they run, and ended by their own process id whatever happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests import loop

ROOT = Path(__file__).parent.parent
EVENTKIT = (sys.executable, "-c", "from eventkit.cli import main; main()")
"""The command `eventkit`, of the Python that runs now."""


def environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, without what it says about brokers, and with what is given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EVENTKIT_")}
    return {**clean, **loop.environment(), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **(given or {})}


class Program:
    """A running program; what it writes to standard output and error is kept, together, in order."""

    def __init__(self, *command: str, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> None:
        self._command = command
        self._process = subprocess.Popen(
            command,
            env=environment(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        self._lines: list[str] = []
        self._grew = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """What it has written so far."""
        with self._grew:
            return "".join(self._lines)

    def wait_for(self, pattern: str, seconds: float = 30) -> re.Match[str]:
        """Until its output matches; fails with its output after `seconds`, or when it has ended without."""
        ends = time.monotonic() + seconds
        with self._grew:
            while True:
                written = "".join(self._lines)
                if found := re.search(pattern, written):
                    return found
                left = ends - time.monotonic()
                if left <= 0 or not self._reader.is_alive():
                    ended = "ended" if not self._reader.is_alive() else f"went on for {seconds:g} s"
                    raise AssertionError(f"{self._name()} {ended} without {pattern!r}:\n{written}")
                self._grew.wait(min(left, 0.5))

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float = 60) -> int:
        """Its exit code; fails with its output when it does not end in time."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self._name()} did not end within {seconds:g} s:\n{self.output}") from None
        self._reader.join(5)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._grew:
                self._lines.append(line)
                self._grew.notify_all()

    def _name(self) -> str:
        return " ".join(self._command[-3:])
