"""Serving: services in this process, until a signal or the end of the lifeline drains them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from types import FrameType

from eventkit.connecting import connect
from eventkit.probes import Probes
from eventkit.processes.lifeline import GRACE, Lifeline
from eventkit.service import Service

log = logging.getLogger("eventkit")


class Serving:
    """Services in this process, and what ends it."""

    def __init__(
        self,
        services: Sequence[Service],
        broker: str | None,
        url: str | None,
        *,
        probes: Probes | None,
        lifeline: Lifeline | None,
        live: Callable[[], None],
    ) -> None:
        """`live` is called when all of them consume. `lifeline`: of the process that watches over this one."""
        self._services = services
        self._broker = broker
        self._url = url
        self._probes = probes
        self._lifeline = lifeline
        self._live = live
        self._told = False
        self._draining = False

    async def run(self) -> None:
        """Until they have drained."""
        loop = asyncio.get_running_loop()

        def told(number: int, frame: FrameType | None) -> None:
            if self._told:
                os._exit(128 + number)
            self._told = True
            name = signal.Signals(number).name
            loop.call_soon_threadsafe(drain, f"{name} came: finishing what runs (a second one ends it at once)")

        def cut(asked: bool) -> None:
            gone = "the process that watches over this one is gone: finishing what runs"
            with suppress(RuntimeError):  # the loop is closed: it has drained already
                loop.call_soon_threadsafe(drain, None if asked else gone)

        def drain(why: str | None) -> None:
            if why is not None:
                log.info("%s", why)
            if not self._draining:  # a service manager may tell us, and our supervisor besides
                self._draining = True
                stopped.cancel()

        # signal.signal, not the loop's: the second signal is heard even while a handler blocks the loop
        before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
        stopped = loop.create_task(self._until_stopped())
        if self._lifeline is not None:
            longest = max(service.stop_timeout.total_seconds() for service in self._services)
            self._lifeline.on_cut(cut, longest + GRACE)
        try:
            await asyncio.wait([stopped])
            if not stopped.cancelled():
                stopped.result()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def _until_stopped(self) -> None:
        names = "-".join(service.name for service in self._services)
        async with (
            self._probes or nullcontext(),
            connect(self._broker, self._url, service=names) as bus,
            bus.run(*self._services) as running,
        ):
            self._live()
            if self._probes is None and running.measured:
                log.warning(
                    "metrics are measured and not told: --health-port, or EVENTKIT_HEALTH_PORT, tells them at /metrics"
                )
            if self._lifeline is not None:
                self._lifeline.ready()
            with nullcontext() if self._probes is None else self._probes.of(running):
                await asyncio.Event().wait()
