"""Serving the page, until it is stopped."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from eventkit.bus import Bus
from eventkit.errors import SettingsError
from eventkit.redacting import Redactor
from eventkit.service import Service
from eventkit.ui.doors import Doors
from eventkit.ui.letters import Letters
from eventkit.ui.live import Live
from eventkit.ui.pages import page


async def show(
    bus: Bus,
    services: Sequence[Service],
    doors: Doors,
    *,
    port: int,
    namespace: str,
    redactor: Redactor,
    ready: Callable[[str], None],
) -> None:
    """Serve the page of these services until cancelled. `port`: 0 takes a free one. `ready` is told its address.

    SettingsError where the extra `ui` is missing, or the port cannot be had.
    """
    try:
        from eventkit.ui.app import application
        from eventkit.ui.server import Server
    except ImportError as error:
        raise SettingsError(f"the page needs the extra `ui` ({error}): pip install 'faststream-eventkit[ui]'") from None
    listening = _listen(doors.host, port)
    with listening:
        shown = await asyncio.to_thread(
            page, services, broker=bus.broker, namespace=namespace, read_only=doors.read_only
        )
        groups = {service.name: [group for group, _ in service.groups().values()] for service in services}
        live = Live(bus, shown.addresses, groups, shown.anchors, redactor)
        letters = Letters(bus, [group.name for own in groups.values() for group in own], redactor)
        server = Server(application(shown, live, letters, doors))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            up = asyncio.create_task(server.up.wait())
            await asyncio.wait([up, serving], return_when=asyncio.FIRST_COMPLETED)
            up.cancel()
            if server.started:
                ready(_address(doors, listening))
            await asyncio.shield(serving)
        finally:
            live.close()  # or it would wait for those who watch
            server.should_exit = True
            await serving


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen(128)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise SettingsError(
            f"nothing can be served at {host}:{port}: {error.strerror or error}; choose another with --port"
        ) from None
    listening.setblocking(False)
    return listening


def _address(doors: Doors, listening: socket.socket) -> str:
    """Where it is to be opened; the token stands where no server and no log gets it."""
    port = listening.getsockname()[1]
    host = socket.gethostname() if doors.host in ("0.0.0.0", "::", "") else doors.host  # noqa: S104 compared only
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + ("" if doors.token is None else f"sign-in#{doors.token}")
