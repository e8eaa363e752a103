"""Probes: liveness, readiness and metrics over HTTP, for whatever watches over the process."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from eventkit.errors import SettingsError
from eventkit.health import Health
from eventkit.running import Running

log = logging.getLogger("eventkit")

PATHS = ("/health/live", "/health/ready")
METRICS = "/metrics"
_JSON = "application/json"
_STUCK = 300.0
"""Seconds without reading, while the broker is there, after which only a restart may help."""
_REQUEST = 5.0
"""Seconds that a request may take."""
_STATUS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
_STARTING = Health(ok=False, broker="not connected yet")
_STOPPING = Health(ok=False, broker="stopping")


class Probes:
    """Answers `/health/live` and `/health/ready` with 200, or with 503 and why.

    Ready: the broker is there and all groups consume; not while services start or drain. Live: the event loop runs,
    and no group has stood still for five minutes while the broker was there. While the broker is away the process stays
    live, for to restart it would not bring the broker back. `/metrics` is what an instrument tells, if there is one:
    404 otherwise, and 503 until services run.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        """`port`: 0 takes a free one, and `port` says which. `host`: from where it may be asked; the loopback by
        default, all by "0.0.0.0"."""
        self.port = port
        self._host = host
        self._server: asyncio.Server | None = None
        self._running: Running | None = None
        self._measured: Running | None = None
        """Whose metrics are told, to the end."""
        self._before = _STARTING
        self._red_since: float | None = None

    async def __aenter__(self) -> Self:
        try:
            self._server = await asyncio.start_server(self._answer, self._host, self.port, limit=8_192)
        except OSError as error:
            raise SettingsError(
                f"health port {self.port} on {self._host} cannot be had ({error}): choose another one"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]
        log.info("health is told at http://%s:%d%s", self._host, self.port, PATHS[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()

    @contextmanager
    def of(self, running: Running) -> Iterator[None]:
        """Tell of these services, until the end of the block: from then on they are stopping."""
        self._running = self._measured = running
        if running.measured:
            log.info("metrics are told at http://%s:%d%s", self._host, self.port, METRICS)
        try:
            yield
        finally:
            self._running, self._before = None, _STOPPING

    def ready(self) -> Health:
        """As `/health/ready` tells it."""
        return self._before if self._running is None else self._running.health()

    def live(self) -> Health:
        """As `/health/live` tells it. How long a group stands still is known from one question to the next."""
        found = self.ready()
        if not found.errors or found.broker is not None:
            self._red_since = None
            return Health(ok=True)
        now = time.monotonic()
        self._red_since = self._red_since or now
        return Health(ok=True) if now - self._red_since < _STUCK else found

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST):
                head = await reader.readuntil(b"\r\n\r\n")
                method, path, *_ = *head.split(b" ", 2), b"", b""
                asked = path.decode("latin-1").partition("?")[0]
                status, kind, body = await self._page(method.decode("latin-1"), asked)
                content = b"" if method == b"HEAD" else body
                writer.write(
                    f"HTTP/1.1 {status} {_STATUS[status]}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n".encode()
                    + content
                )
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asks so badly gets no answer
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _page(self, method: str, path: str) -> tuple[int, str, bytes]:
        if path not in (*PATHS, METRICS):
            return 404, _JSON, _json({"paths": [*PATHS, METRICS]})
        if method not in ("GET", "HEAD"):
            return 405, _JSON, _json({"methods": ["GET", "HEAD"]})
        if path == METRICS:
            return await self._metrics()
        found = self.live() if path == PATHS[0] else self.ready()
        said = {"status": "live"} if found.ok and path == PATHS[0] else found.as_json()
        return (200 if found.ok else 503), _JSON, _json(said)

    async def _metrics(self) -> tuple[int, str, bytes]:
        if self._measured is None:
            return 503, _JSON, _json(self.ready().as_json())
        page = await self._measured.metrics()
        if page is None:
            return 404, _JSON, _json({"error": "nothing tells metrics: EVENTKIT_METRICS=prometheus does"})
        return 200, page.content_type, page.body


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"
