# ruff: noqa: S603  (what is run is named here, or by the person at the command line)
"""Starts one server and ends it when its owner goes away, however the owner ends.

A process of its own, run by path (it imports nothing of this package, so that it starts in a few
milliseconds): `python keeper.py FOLDER LOG COMMAND...`. Its owner holds the other end of its standard input.

* The owner writes a line: the server is ended, its folder is the owner's to keep or remove.
* The owner is gone (`kill -9` too): the server is ended and the folder removed.
* The server ends by itself: so does the keeper, with the same exit code.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time


def _die_with_keeper() -> None:
    if _libc is not None:
        _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end(server: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def main() -> int:
    folder, log, *command = sys.argv[1:]
    owner = os.getppid()
    with open(log, "ab") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_keeper,  # noqa: PLW1509  (there is one thread)
        )
    os.write(1, b"%d\n" % server.pid)
    while server.poll() is None:
        ready, _, _ = select.select([0], [], [], 0.2)
        # A child that the owner forked may hold the pipe open after the owner's end: hence the look at the parent.
        if not ready and os.getppid() == owner:
            continue
        told = bool(ready and os.read(0, 16))
        _end(server)
        if not told:
            _remove(folder)
        return 0
    _end(server)  # what the server has started and left
    return abs(int(server.returncode))


def _remove(folder: str) -> None:
    for _ in range(20):  # another keeper of the same folder may still be ending its server
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
