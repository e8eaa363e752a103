"""`eventkit ui`: a local page of what flows, what waits and what was given up on."""

from __future__ import annotations

import asyncio
import signal
import sys
import webbrowser
from collections.abc import Coroutine
from contextlib import nullcontext
from typing import Annotated, Any, Optional

import typer

from eventkit import discovery
from eventkit.adapter import Provision
from eventkit.bus import Bus
from eventkit.cli import broker as brokers
from eventkit.cli.broker import Broker, Url, redaction
from eventkit.cli.ending import STOPPED, fail
from eventkit.cli.named import Services, load
from eventkit.errors import SettingsError
from eventkit.log import to_console
from eventkit.settings import read_settings
from eventkit.ui import Doors, show

_ALONE = (
    "the memory broker lives inside one process, so nothing of it can be seen from here: say --run, and the services "
    "run in this one; or set EVENTKIT_BROKER and EVENTKIT_URL to a broker that they share"
)


def ui(  # noqa: PLR0913 each is an option
    services: Services,
    host: Annotated[
        str, typer.Option(help="Where it listens. 127.0.0.1: nobody else sees it. Elsewhere a token is asked for.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8091,
    token: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="What one signs in with, 16 characters or more. Default: on 127.0.0.1 none, elsewhere a new one, "
            "which is printed."
        ),
    ] = None,
    allow_host: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="NAME", help="A further name that the page is opened by, such as a proxy's."),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Nothing can be retried or discarded.")] = False,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open it in a browser, if this is a terminal.")
    ] = True,
    run: Annotated[bool, typer.Option("--run", help="Run the services too, in this process.")] = False,
    broker: Broker = None,
    url: Url = None,
) -> None:
    """Show in a browser what flows: a map with live rates, backlogs, messages as they come, and dead letters to retry
    or discard, until Ctrl-C.

    No group is disturbed, and nothing stays on the broker. It may run beside the services, on any machine
    that reaches the broker.
    """
    found, redactor = load(services), redaction()
    to_console()
    try:
        doors = Doors(host, token=token, names=allow_host or [], read_only=read_only)
        namespace = read_settings(discovery.installed()).namespace
    except SettingsError as error:
        fail(str(error))

    def ready(address: str) -> None:
        typer.echo(f"{address}  (Ctrl-C ends it)")
        if browser and sys.stdout.isatty():
            asyncio.get_running_loop().run_in_executor(None, webbrowser.open, address)

    async def work(bus: Bus) -> None:
        async with bus.run(*found) if run else nullcontext():
            await _until_told(show(bus, found, doors, port=port, namespace=namespace, redactor=redactor, ready=ready))

    try:
        brokers.run(work, broker, url, alone=None if run else _ALONE, provision=None if run else Provision.VALIDATE)
    except typer.Exit as ended:
        if ended.exit_code == STOPPED:
            raise typer.Exit(0) from None  # to stop is how it ends
        raise


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    """Do it until SIGTERM, or Ctrl-C."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
