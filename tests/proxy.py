"""A way to a broker that can fail: it cuts, refuses, falls silent, or loses what is on it."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from eventkit.testing.brokers.process import free_port

T = TypeVar("T")

_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Passes bytes on between clients and one server, in a thread of its own. Its methods may be called from any
    other thread, and return when it is done."""

    def __init__(self, port: int | None = None) -> None:
        """`port`: where it listens, on 127.0.0.1. None: on a free one."""
        self.port = port or free_port()
        self._to = 0
        self._loop = asyncio.new_event_loop()
        self._lines: set[_Line] = set()
        self._silent = False
        self._refusing = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", self.port), self._loop
        ).result(5)

    def to(self, port: int) -> None:
        """The server is at this port of 127.0.0.1."""
        self._to = port

    def cut(self) -> None:
        """Reset all connections, once."""
        self._do(self._cut)

    def refuse(self) -> None:
        """Reset all connections, and each new one, until `mend`."""
        self._do(self._refuse)

    def stall(self) -> None:
        """Pass nothing on in either direction, not on new connections either, until `mend`. Nothing is closed, and
        what is held up then goes on."""
        self._do(lambda: self._set(silent=True))

    def forget(self) -> None:
        """Pass nothing on any more on the connections of now, and close neither end: half-open, as behind a router
        that was restarted. New ones work."""
        self._do(lambda: [line.freeze() for line in self._lines])

    def mend(self) -> None:
        """Pass on again."""
        self._do(lambda: self._set(silent=False))

    @property
    def open(self) -> int:
        """Connections that are open."""
        return len(self._lines)

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            self._cut()
            await asyncio.gather(*(line.ended.wait() for line in list(self._lines)))

        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, work: Callable[[], object]) -> None:
        async def done() -> None:
            work()

        asyncio.run_coroutine_threadsafe(done(), self._loop).result(5)

    def _cut(self) -> None:
        for line in list(self._lines):
            line.reset()

    def _refuse(self) -> None:
        self._refusing = True
        self._cut()

    def _set(self, *, silent: bool) -> None:
        self._silent, self._refusing = silent, False
        for line in self._lines:
            (line.flows.clear if silent or line.frozen else line.flows.set)()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = _Line(reader, writer)
        self._lines.add(line)
        try:
            if not self._refusing:
                (line.flows.clear if self._silent else line.flows.set)()
                await line.run(self._to)
        finally:
            line.reset()
            line.ended.set()
            self._lines.discard(line)


class _Line:
    """One client's connection, and the one to the server that belongs to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.flows = asyncio.Event()
        self.frozen = False
        self.ended = asyncio.Event()
        self._reader = reader
        self._writers = [writer]
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, port: int) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        self._writers.append(writer)
        self._tasks = [
            asyncio.ensure_future(self._pass_on(self._reader, writer)),
            asyncio.ensure_future(self._pass_on(reader, self._writers[0])),
        ]
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        while self.frozen:  # neither end learns that the other one is gone
            await asyncio.sleep(0.05)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self.flows.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass

    def freeze(self) -> None:
        self.frozen = True
        self.flows.clear()

    def reset(self) -> None:
        self.frozen = False
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            found = writer.get_extra_info("socket")
            if found is not None and found.fileno() >= 0:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
