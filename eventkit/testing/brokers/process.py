# ruff: noqa: S603  (what is run is named here, or by the person at the command line)
"""Runs servers and commands so that none outlives the test run and none hangs it."""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eventkit.testing.brokers import probe
from eventkit.testing.brokers.errors import NotThisWay

Say = Callable[[str], object]

_KEEPER = Path(__file__).with_name("keeper.py")


def run(
    command: Sequence[str],
    *,
    what: str,
    seconds: float,
    say: Say,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """Run a command to its end and return what it printed; says every 10 s that it still runs.

    Raises `NotThisWay` with the end of its output when it fails, and when it takes longer than `seconds`.
    """
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:

        def printed() -> str:
            output.seek(0)
            return output.read().decode(errors="replace")

        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else {**os.environ, **environment},
                cwd=folder,
                # Ctrl-C must not cut a package manager off in the middle: it ends by itself or by the time limit.
                start_new_session=True,
            )
        except OSError as error:
            raise NotThisWay(f"{what}: {command[0]} cannot be run: {error}") from error
        while True:
            try:
                code = process.wait(timeout=min(10, max(0.1, began + seconds - time.monotonic())))
                break
            except subprocess.TimeoutExpired:
                took = time.monotonic() - began
                if took >= seconds:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    raise NotThisWay(f"{what}: not done after {seconds:g} s, given up. {_tail(printed())}") from None
                say(f"{what} ... {took:.0f} s")
        if code:
            raise NotThisWay(f"{what}: {command[0]} ended with {code}. {_tail(printed())}")
        return printed()


_given: set[int] = set()
_given_lock = threading.Lock()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses, and that the system does not hand out by itself.

    Outside the range of ephemeral ports: there, while a killed server is down, a client that tries to reconnect
    can be given the server's own port and then talks to itself, and the server cannot come back.
    """
    with _given_lock:
        for _ in range(1000):
            port = 15_000 + secrets.randbelow(17_000)  # Linux hands out 32768 and up, macOS and Windows 49152 and up
            if port in _given:
                continue
            with socket.socket() as trial:
                try:
                    trial.bind(("127.0.0.1", port))
                except OSError:
                    continue
            _given.add(port)
            return port
    raise NotThisWay("no free port between 15000 and 32000 on 127.0.0.1")


@dataclass(frozen=True)
class Program:
    """One process of a server: its command, and how to ask it whether it is ready."""

    name: str
    command: Sequence[str]
    port: int
    ready: probe.Probe
    environment: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    """Prefixes of variables that it must not inherit."""
    seconds: float = 60


class Server:
    """A server on this machine: one or more programs that share a folder, started in order."""

    def __init__(self, name: str, folder: Path, programs: Sequence[Program], say: Say) -> None:
        self._name = name
        self._folder = folder
        self._programs = programs
        self._say = say
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._kept: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
        self.version = ""
        _running.add(self)

    def start(self) -> None:
        with self._lock:
            for program in self._programs:
                if not self._alive(program):
                    self.version = self._launch(program)

    def kill(self) -> None:
        # Only the server itself, which is the last: what it needs to come up again (epmd) goes on.
        self._end(self._programs[-1], signal.SIGKILL, seconds=10)

    def restart(self) -> None:
        self._end(self._programs[-1], signal.SIGTERM, seconds=15)
        self.start()

    def stop(self) -> None:
        with self._lock:
            for program in reversed(self._programs):
                kept = self._kept.pop(program.name, None)
                if kept is None:
                    continue
                keeper, _ = kept
                with contextlib.suppress(OSError):
                    assert keeper.stdin is not None
                    keeper.stdin.write(b"end\n")
                    keeper.stdin.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    keeper.wait(timeout=15)
                self._close(keeper)
            shutil.rmtree(self._folder, ignore_errors=True)
            _running.discard(self)

    @property
    def alive(self) -> bool:
        """Does the server itself run?"""
        return self._alive(self._programs[-1])

    def send(self, number: signal.Signals) -> None:
        """To the server itself, such as SIGSTOP: it stands still until SIGCONT."""
        with self._lock:
            if self.alive:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._kept[self._programs[-1].name][1], number)

    def stop_at_exit(self) -> None:
        """`stop()`, but not in a child that was forked from the process that owns the server."""
        if os.getpid() == self._owner:
            self.stop()

    def _launch(self, program: Program) -> str:
        log = self._folder / f"{program.name}.log"
        environment = {
            key: value for key, value in os.environ.items() if not (program.without and key.startswith(program.without))
        }
        keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_KEEPER), str(self._folder), str(log), *program.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**environment, **program.environment},
            cwd=self._folder,
            start_new_session=True,  # Ctrl-C in the terminal is for the tests, not for their servers
        )
        assert keeper.stdout is not None
        assert keeper.stderr is not None
        line = keeper.stdout.readline()
        if not line.strip().isdigit():
            reason = keeper.stderr.read().decode(errors="replace")
            self._close(keeper)
            raise NotThisWay(f"{program.command[0]} cannot be started. {_tail(reason)}")
        self._kept[program.name] = (keeper, int(line))
        done = threading.Event()
        threading.Thread(target=self._report, args=(program, done), daemon=True).start()
        try:
            return probe.wait(
                program.ready,
                "127.0.0.1",
                program.port,
                seconds=program.seconds,
                alive=lambda: keeper.poll() is None,
            )
        except probe.NotReady as error:
            text = log.read_text(errors="replace") if log.exists() else ""
            self._end(program, signal.SIGKILL, seconds=10)
            raise NotThisWay(f"{program.name} did not start: {error}. {_tail(text)}") from error
        finally:
            done.set()

    def _report(self, program: Program, done: threading.Event) -> None:
        began = time.monotonic()
        while not done.wait(10):
            self._say(f"{self._name}: starting {program.name} ... {time.monotonic() - began:.0f} s")

    def _end(self, program: Program, how: signal.Signals, *, seconds: float) -> None:
        with self._lock:
            kept = self._kept.pop(program.name, None)
            if kept is None:
                return
            keeper, group = kept
            for number in (how, signal.SIGKILL):
                if keeper.poll() is None:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(group, number)
                try:
                    keeper.wait(timeout=seconds)
                    break
                except subprocess.TimeoutExpired:
                    continue
            self._close(keeper)

    def _alive(self, program: Program) -> bool:
        kept = self._kept.get(program.name)
        return kept is not None and kept[0].poll() is None

    @staticmethod
    def _close(keeper: subprocess.Popen[bytes]) -> None:
        for pipe in (keeper.stdin, keeper.stdout, keeper.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


_running: set[Server] = set()


@atexit.register
def _stop_all() -> None:
    for server in list(_running):
        server.stop_at_exit()


def _tail(text: str, lines: int = 12) -> str:
    kept = [line for line in text.splitlines() if line.strip()][-lines:]
    return "It said:\n    " + "\n    ".join(kept) if kept else "It said nothing."
