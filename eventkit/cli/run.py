"""`eventkit run`: services in this process, in several, or anew after each change."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn, Optional

import typer

from eventkit import discovery
from eventkit.cli import candidates, health
from eventkit.cli.broker import Broker, Url
from eventkit.cli.ending import FAILED, USAGE, fail
from eventkit.cli.environment_file import load_environment
from eventkit.cli.sources import import_roots
from eventkit.errors import EventkitError, SettingsError
from eventkit.loading import NotLoaded, load_services
from eventkit.log import to_console
from eventkit.log_json import to_json
from eventkit.processes import loop
from eventkit.processes.lifeline import Lifeline
from eventkit.processes.reloading import run_reloading
from eventkit.processes.serving import Serving
from eventkit.processes.supervisor import Supervisor
from eventkit.processes.worker import Assignment, Worker
from eventkit.service import Service
from eventkit.settings import Settings, read_settings
from eventkit.subscriptions import channels, table

log = logging.getLogger("eventkit")

_LEVELS, _FORMATS = ("debug", "info", "warning", "error"), ("console", "json")


def run(  # noqa: PLR0913 each is an option
    context: typer.Context,
    # Optional[...], not `| None`, and no defaults inside: what typer has understood since 0.12
    services: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="MODULE:SERVICE",
            help="Such as shop.orders:service. Default: the service of this folder, if it has just one.",
        ),
    ] = None,
    broker: Broker = None,
    url: Url = None,
    env_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="NAME=VALUE lines; what the environment has set already stands."),
    ] = None,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=1, help="Run so many processes, which share the work, and start one that dies again. Default: this one."
        ),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start anew whenever a Python file here changes. To develop with.")
    ] = False,
    log_level: Annotated[str, typer.Option(metavar="LEVEL", help=f"{', '.join(_LEVELS)}.")] = "info",
    log_format: Annotated[
        str, typer.Option(metavar="FORMAT", help="console, for people; json, for programs: an object a line.")
    ] = "console",
    health_port: health.Port = None,
    health_host: health.Host = "127.0.0.1",
    worker: Annotated[Optional[str], typer.Option(hidden=True)] = None,  # noqa: UP045
) -> None:
    """Run services until SIGTERM or Ctrl-C, which drains them: what runs is finished, the rest given back.

    A second signal ends the process at once. MODULE is looked for from the current folder; SERVICE is a Service, or a
    list or tuple of them.

    With --workers and --health-port each process tells its own health: the first at that port, the second at the next.
    """
    _check(log_level, log_format, reload, workers)
    mine = Assignment.read(worker) if worker is not None else None
    number = None if workers is None else 0 if mine is None else mine.number
    (to_json if log_format == "json" else to_console)(log_level.upper(), worker=number)
    order = _Order(
        services or [], broker, url, env_file, workers, log_level, log_format, health_port, health_host,
        debug=bool(context.parent and context.parent.params.get("debug")),
    )  # fmt: skip
    try:
        inherited = dict(os.environ)
        if env_file is not None:
            load_environment(env_file)
        if mine is not None:
            _serve(order, mine)
        elif reload:
            files = [] if env_file is None else [env_file]
            code = run_reloading(Path.cwd(), files, lambda: _worker(order, inherited, 1, tells=True))
            raise typer.Exit(code)
        elif workers is not None:
            _not_alone(order)
            supervisor = Supervisor(workers, lambda at, tells: _worker(order, inherited, at, tells=tells))
            raise typer.Exit(supervisor.run())
        else:
            _serve(order, None)
    except (SettingsError, NotLoaded) as error:
        _say_and_end(order, str(error), USAGE)
    except EventkitError as error:
        _say_and_end(order, str(error), FAILED)
    except typer.Exit:
        raise
    except Exception as error:
        log.exception("services could not be started")
        _say_and_end(order, f"not started: {type(error).__name__}: {error}", FAILED)


def _check(log_level: str, log_format: str, reload: bool, workers: int | None) -> None:
    if log_level.lower() not in _LEVELS:
        fail(f"--log-level {log_level}: it is {', '.join(_LEVELS[:-1])} or {_LEVELS[-1]}")
    if log_format not in _FORMATS:
        fail(f"--log-format {log_format}: it is {' or '.join(_FORMATS)}")
    if sys.platform == "win32" and (reload or workers is not None):
        fail("--reload and --workers need a system with Unix signals: run one process, or several by hand")
    if reload and workers is not None:
        fail("--reload runs one process: leave --workers out")


@dataclass(frozen=True, slots=True)
class _Order:
    """What the command line says."""

    services: Sequence[str]
    broker: str | None
    url: str | None
    env_file: Path | None
    workers: int | None
    log_level: str
    log_format: str
    health_port: int | None
    health_host: str
    debug: bool

    def arguments(self, number: int) -> Sequence[str]:
        """For worker so-and-so. Broker and url go by the environment: a list of processes shows arguments to all."""
        said: list[tuple[str, object]] = [
            ("--env-file", self.env_file),
            ("--workers", self.workers),
            ("--log-level", self.log_level),
            ("--log-format", self.log_format),
            ("--health-port", self.port(number)),
            ("--health-host", self.health_host),
        ]
        options = [word for name, value in said if value is not None for word in (name, str(value))]
        return [*options, *(["--debug"] if self.debug else []), *self.services]

    def port(self, number: int) -> int | None:
        """Where worker so-and-so tells its health."""
        port = read_settings(discovery.installed()).health_port if self.health_port is None else self.health_port
        return port + number - 1 if port else port

    def environment(self, inherited: Mapping[str, str]) -> Mapping[str, str]:
        said = {"EVENTKIT_BROKER": self.broker, "EVENTKIT_URL": self.url}
        return {**inherited, **{name: value for name, value in said.items() if value is not None}}


def _worker(order: _Order, inherited: Mapping[str, str], number: int, *, tells: bool) -> Worker:
    return Worker(number, order.arguments(number), order.environment(inherited), tells=tells)


def _serve(order: _Order, mine: Assignment | None) -> None:
    """Services in this process."""
    lifeline = None if mine is None else Lifeline(mine.descriptor)
    sys.path[:0] = [str(root) for root in import_roots(Path.cwd())]
    services = load_services(order.services or [_only()])
    probes = health.probes(order.port(1), order.health_host)
    where = _where(order.broker, order.url)
    live = _teller(order, services, where) if mine is None or mine.tells else _silent
    serving = Serving(services, order.broker, order.url, probes=probes, lifeline=lifeline, live=live)
    with asyncio.Runner(loop_factory=loop.factory(read_settings(discovery.installed()).loop)) as runner:
        runner.run(serving.run())


def _only() -> str:
    """The service of the current folder."""
    found = candidates.services(Path.cwd())
    if not found:
        raise NotLoaded(
            "there is no `name = Service(...)` at the top of a module in this folder: "
            "say which to run, such as `eventkit run shop.orders:service`"
        )
    if len(found) > 1:
        shown = [*found[:10], *(["..."] if len(found) > 10 else [])]
        raise NotLoaded(f"this folder has {len(found)} services: say which to run, of {' '.join(shown)}")
    return found[0]


def _not_alone(order: _Order) -> None:
    """Refuse processes that would not see each other's messages."""
    if (order.broker or read_settings(discovery.installed()).broker) == "memory":
        raise SettingsError(
            "--workers: on the memory broker each process would have a broker of its own; "
            "set EVENTKIT_BROKER and EVENTKIT_URL, or leave --workers out"
        )


def _teller(order: _Order, services: Sequence[Service], where: str) -> Callable[[], None]:
    """Says what they listen to, in the form of the log."""

    def lines() -> None:
        for group, channel, types in channels(services):
            log.info(
                "%s: listens to %s for %s", group, channel, ", ".join(types), extra={"group": group, "broker": where}
            )

    def text() -> None:
        typer.echo(table(services, where), err=True)

    return lines if order.log_format == "json" else text


def _silent() -> None:
    """Another worker says it."""


def _where(broker: str | None, url: str | None) -> str:
    settings = read_settings(discovery.installed())
    place = _address(broker or settings.broker, url, settings)
    return f"{place}, namespace {settings.namespace}" if settings.namespace else place


def _address(name: str, url: str | None, settings: Settings) -> str:
    if name == "memory":
        return "memory (this process alone)"
    secret = settings.url.get_secret_value() if settings.url else None
    given = url or secret
    if given is None:
        return f"{name} on this machine"
    scheme, separator, rest = given.rpartition("://")
    # what stands before the last @ may hold a password, and so may a query
    return f"{name} at {scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"


def _say_and_end(order: _Order, text: str, code: int) -> NoReturn:
    """In one line, in the form of the log."""
    if order.log_format == "json":
        log.critical("%s", text)
        raise typer.Exit(code)
    fail(text, code)
