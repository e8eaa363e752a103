# ruff: noqa: S603  (what is run is named by the person at the command line)
"""Runs a command beside real brokers.

    python -m eventkit.testing.brokers redis -- python my_service.py
    python -m eventkit.testing.brokers redis nats rabbit kafka -- pytest
    python -m eventkit.testing.brokers redis                            (until Ctrl-C)
    python -m eventkit.testing.brokers --install redis nats rabbit kafka

The command gets EVENTKIT_TEST_<NAME>_URL for each broker, and for a single one EVENTKIT_BROKER and EVENTKIT_URL too.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TypeVar

from eventkit.testing.brokers import NAMES, Broker, BrokerUnavailable, make_available, provide

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Told(BaseException):
    """A signal to stop came."""

    def __init__(self, number: int) -> None:
        self.number = number


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command: list[str] = []
    parser = _parser()
    if "--" in given:
        at = given.index("--")
        given, command = given[:at], given[at + 1 :]
        if not command:
            parser.error("there is no command after --")
    options = parser.parse_args(given)
    names = list(dict.fromkeys(options.names))
    for number in _SIGNALS:
        signal.signal(number, _told)
    try:
        if options.install:
            if command:
                parser.error("--install runs no command")
            for _ in _each(names, lambda name: make_available(name, say=_say)):
                pass
            return 0
        return _beside(names, command, options.write)
    except BrokerUnavailable:
        return 1  # it has been said
    except _Told as told:
        return 128 + told.number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eventkit.testing.brokers",
        usage="%(prog)s [--install] [--write FILE] NAME [NAME ...] [-- COMMAND ...]",
        description="Runs a command beside real brokers; without a command keeps them up until Ctrl-C.",
    )
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--install", action="store_true", help="only make them available: fetch or install, start none")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write VARIABLE=VALUE lines, each as its broker is up"
    )
    return parser


def _beside(names: Sequence[str], command: Sequence[str], file: Path | None) -> int:
    """Provide the brokers, run the command or wait for a signal, and end the brokers whatever happens."""
    brokers: list[Broker] = []
    try:
        for broker in _each(names, lambda name: provide(name, say=_say)):
            brokers.append(broker)
            if file is not None:
                _write(file, brokers)
        if command:
            return _run(command, brokers)
        sys.stdout.write(_lines(brokers))
        sys.stdout.flush()
        _say("Running until Ctrl-C.")
        while True:
            time.sleep(3600)
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not cut the cleaning up short
        for broker in brokers:
            broker.stop()
        if file is not None:
            file.unlink(missing_ok=True)


def _told(number: int, frame: FrameType | None) -> None:
    raise _Told(number)


def _say(line: str) -> None:
    # Standard output belongs to the command. In one piece, since brokers are provided at the same time.
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def variables(brokers: Sequence[Broker]) -> dict[str, str]:
    """What `provide` in another process finds the brokers by."""
    variables = {}
    for broker in brokers:
        variables[f"EVENTKIT_TEST_{broker.name.upper()}_URL"] = broker.url
        if broker.name == "kafka":  # the one that cannot be asked for its version
            variables["EVENTKIT_TEST_KAFKA_VERSION"] = broker.version
    return variables


def _lines(brokers: Sequence[Broker]) -> str:
    return "".join(f"{name}={value}\n" for name, value in variables(brokers).items())


def _write(file: Path, brokers: Sequence[Broker]) -> None:
    fresh = file.with_name(file.name + ".new")
    fresh.write_text(_lines(brokers))
    fresh.replace(file)


def _each(names: Sequence[str], work: Callable[[str], T]) -> Iterator[T]:
    """What `work` gives for each name, all at the same time, in the order in which they are done."""
    done: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()

    def one(name: str) -> None:
        try:
            done.put(work(name))
        except BaseException as error:  # noqa: BLE001  (raised below, in the main thread)
            done.put(error)

    for name in names:
        # Daemons: a signal must not wait for a package manager, which ends by itself.
        threading.Thread(target=one, args=(name,), daemon=True).start()
    failure: BaseException | None = None
    for _ in names:
        result = done.get()
        if isinstance(result, BaseException):
            failure = failure or result
            if isinstance(result, BrokerUnavailable):
                _say(str(result))
        else:
            yield result
    if failure is not None:
        raise failure


def _run(command: Sequence[str], brokers: Sequence[Broker]) -> int:
    """Run the command to its end, pass signals on to it, and return its exit code."""
    environment = variables(brokers)
    if len(brokers) == 1:
        environment |= {"EVENTKIT_BROKER": brokers[0].name, "EVENTKIT_URL": brokers[0].url}
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, frame: FrameType | None = None) -> None:
        if process is None:
            early.append(number)  # while the command is being started
        # Ctrl-C in a terminal has reached the command already: twice would mean "now", not "please".
        elif number != signal.SIGINT or not os.isatty(0):
            process.send_signal(number)

    for number in _SIGNALS:
        signal.signal(number, pass_on)
    try:
        process = subprocess.Popen(command, env={**os.environ, **environment})
    except OSError as error:
        _say(f"{command[0]} cannot be run: {error}")
        return 127
    for waiting in early:
        pass_on(waiting)
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
