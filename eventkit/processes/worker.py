"""A worker: one process that runs services, as the process that watches over it holds it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from eventkit.processes.lifeline import DRAIN, READY


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the worker is told about itself, as one word of its command line."""

    number: int
    descriptor: int
    """Of its end of the lifeline."""
    tells: bool
    """Whether it shows what it listens to."""

    def __str__(self) -> str:
        return f"{self.number}:{self.descriptor}:{int(self.tells)}"

    @classmethod
    def read(cls, text: str) -> Self:
        """The opposite of `str`. ValueError where it is nothing of ours."""
        number, descriptor, tells = (int(part) for part in text.split(":"))
        return cls(number, descriptor, bool(tells))


class Worker:
    """Started when it is made, as a new interpreter and never by a fork: what was imported here is not in there."""

    def __init__(self, number: int, arguments: Sequence[str], environment: Mapping[str, str], *, tells: bool) -> None:
        """`arguments`: of `eventkit run`."""
        self.number = number
        self.ready_at: float | None = None
        """By time.monotonic(), when it said that its services consume. None: not yet."""
        self._line, theirs = socket.socketpair()
        with theirs:
            told = Assignment(number, theirs.fileno(), tells)
            self._process = subprocess.Popen(  # noqa: S603 our own command line
                # -P: what lies in the current folder must not be taken for a library
                [sys.executable, "-P", "-m", "eventkit", "run", *arguments, "--worker", str(told)],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                pass_fds=(told.descriptor,),
                process_group=0,  # Ctrl-C at a terminal reaches the one that watches, which drains the workers
            )
        self._line.setblocking(False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """For a selector: readable when the worker has something to say, or is gone."""
        return self._line.fileno()

    def listen(self) -> bool:
        """Take what it has said. False: the line has ended."""
        try:
            said = self._line.recv(16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if READY in said and self.ready_at is None:
            self.ready_at = time.monotonic()
        return bool(said)

    def poll(self) -> int | None:
        """Its exit code as a shell says it, 128 + n for a signal; None while it runs."""
        code = self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def how(self) -> str:
        """How it has ended, in words."""
        code = self._process.poll()
        if code is None or code >= 0:
            return f"ended with exit code {code}"
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"was ended by signal {-code}"

    def drain(self) -> None:
        """Have it finish what runs and end. Twice is harmless."""
        with suppress(OSError):
            self._line.send(DRAIN)
            self._line.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """End it and what it has started, at once."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it has ended within so many seconds. None: wait as long as it takes."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
            return True
        return False

    def close(self) -> None:
        """Let go of the line: it drains, if it still runs."""
        self._line.close()
