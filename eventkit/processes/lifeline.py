"""The lifeline: how a process that runs services, and the one that watches over it, know of each other.

A pair of connected sockets. The worker says when it is ready. The end of the line tells the worker to drain, whether it
was closed or has gone with its holder (kill -9 too); so no signal is needed, and a service manager may send its own to
all processes.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

READY, DRAIN = b"r", b"d"
GRACE = 10.0
"""Seconds beyond the services' own limits, for lifespans and connections to close."""


class Lifeline:
    """The worker's end. Until `on_cut` is called, the end of the line ends the process at once."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor`: the inherited socket."""
        os.set_inheritable(descriptor, False)  # the line is held by this process, not by what a handler starts
        self._socket = socket.socket(fileno=descriptor)
        self._lock = threading.Lock()
        self._drain: Callable[[bool], None] | None = None
        self._limit = 0.0
        # a thread, and not the event loop: a handler that blocks the loop must not keep an orphan alive
        threading.Thread(target=self._hold, name="eventkit lifeline", daemon=True).start()

    def ready(self) -> None:
        """Say that the services consume."""
        with suppress(OSError):
            self._socket.send(READY)

    def on_cut(self, drain: Callable[[bool], None], limit: float) -> None:
        """At the end of the line call `drain`, in a thread of its own, with whether it was asked for; and end the
        process when it has not ended `limit` seconds later."""
        with self._lock:
            self._drain, self._limit = drain, limit

    def _hold(self) -> None:
        asked = False
        with suppress(OSError):
            while said := self._socket.recv(16):
                asked = asked or DRAIN in said
        with self._lock:
            drain, limit = self._drain, self._limit
        if drain is None:
            os._exit(0)  # it is still being imported: nothing runs
        drain(asked)
        time.sleep(limit)
        os._exit(1)
