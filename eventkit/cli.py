"""The command line: `eventkit run module:service`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from types import FrameType
from typing import Annotated, NoReturn, Optional

import typer

from eventkit import cli_dead_letters, cli_docs, cli_doctor, cli_health, cli_status, cli_tail, cli_topics, discovery
from eventkit.bus import connect
from eventkit.errors import EventkitError, SettingsError
from eventkit.loading import NotLoaded, load_services
from eventkit.log import to_console
from eventkit.probes import Probes
from eventkit.service import Service
from eventkit.settings import read_settings
from eventkit.subscriptions import table

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

log = logging.getLogger("eventkit")

_USAGE, _FAILED = 2, 1

app.add_typer(cli_dead_letters.app, name="dead-letters")
app.add_typer(cli_docs.app, name="docs")
app.add_typer(cli_topics.app, name="topics")
app.command()(cli_status.status)
app.command()(cli_tail.tail)
app.command()(cli_doctor.doctor)
app.command()(cli_health.health)


@app.callback()
def _root() -> None:
    """Events and commands for Python services. The broker is a setting: EVENTKIT_BROKER, EVENTKIT_URL."""


@app.command()
def run(
    # Optional[...], not `| None`, and no defaults inside: what typer has understood since 0.12
    services: Annotated[list[str], typer.Argument(metavar="MODULE:SERVICE ...", help="Such as shop.orders:service.")],
    broker: Annotated[Optional[str], typer.Option(help="Instead of EVENTKIT_BROKER.")] = None,  # noqa: UP045
    url: Annotated[Optional[str], typer.Option(help="Instead of EVENTKIT_URL.")] = None,  # noqa: UP045
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    health_port: cli_health.Port = None,
    health_host: cli_health.Host = "127.0.0.1",
) -> None:
    """Run services until SIGTERM or Ctrl-C, which drains them: what runs is finished, the rest given back.

    A second signal ends the process at once. MODULE is looked for from the current folder; SERVICE is a Service, or a
    list or tuple of them.
    """
    if log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        _fail(f"--log-level {log_level}: it is debug, info, warning or error", _USAGE)
    to_console(log_level.upper())
    sys.path.insert(0, os.getcwd())
    try:
        found = load_services(services)
    except NotLoaded as error:
        _fail(str(error), _USAGE)
    try:
        where = _where(broker, url)
        asyncio.run(_Process(found, broker, url, where, cli_health.probes(health_port, health_host)).run())
    except SettingsError as error:
        _fail(str(error), _USAGE)
    except EventkitError as error:
        _fail(str(error), _FAILED)
    except Exception as error:
        log.exception("services could not be started")
        _fail(f"not started: {type(error).__name__}: {error}", _FAILED)


class _Process:
    """Services in this process, and the signals that end it."""

    def __init__(
        self, services: Sequence[Service], broker: str | None, url: str | None, where: str, probes: Probes | None
    ) -> None:
        self._services = services
        self._probes = probes
        self._broker = broker
        self._url = url
        self._where = where
        self._told = False

    async def run(self) -> None:
        loop = asyncio.get_running_loop()

        def told(number: int, frame: FrameType | None) -> None:
            if self._told:
                os._exit(128 + number)
            self._told = True
            loop.call_soon_threadsafe(drain, signal.Signals(number).name)

        def drain(name: str) -> None:
            log.info("%s came: finishing what runs (a second one ends it at once)", name)
            stopped.cancel()

        # signal.signal, not the loop's: the second signal is heard even while a handler blocks the loop
        before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
        stopped = loop.create_task(self._until_stopped())
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
            typer.echo(table(self._services, self._where), err=True)
            with nullcontext() if self._probes is None else self._probes.of(running):
                await asyncio.Event().wait()


def _where(broker: str | None, url: str | None) -> str:
    settings = read_settings(discovery.installed())
    name = broker or settings.broker
    if name == "memory":
        return "memory (this process alone)"
    secret = settings.url.get_secret_value() if settings.url else None
    given = url or secret
    if given is None:
        return f"{name} on this machine"
    scheme, separator, rest = given.rpartition("://")
    # what stands before the last @ may hold a password, and so may a query
    return f"{name} at {scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"


def _fail(text: str, code: int) -> NoReturn:
    typer.echo(f"eventkit: {text}", err=True)
    raise typer.Exit(code)


def main() -> None:
    app()
