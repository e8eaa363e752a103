"""`eventkit groups list | remove`: which groups there are on the broker, and how one that is retired goes away."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Annotated

import typer

from eventkit.adapter import Backlog, Group
from eventkit.backlogs import Found, look
from eventkit.bus import Bus
from eventkit.cli.backlogs import as_json as object_of
from eventkit.cli.backlogs import as_table
from eventkit.cli.broker import Broker, Json, Url, run, width
from eventkit.cli.ending import FAILED, fail
from eventkit.errors import DeclarationError, GroupInUse
from eventkit.names import logical

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Which groups there are on the broker. A retired one keeps what it has waiting until it is removed.",
)

_AT_ONCE = 8


@app.command("list")
def list_(as_json: Json = False, broker: Broker = None, url: Url = None) -> None:
    """List all groups of the namespace: who reads each, what it reads, and what waits for it. Changes nothing.

    RabbitMQ tells them only by its management API: EVENTKIT_RABBIT__MANAGEMENT=http://localhost:15672.
    """

    async def work(bus: Bus) -> list[Found]:
        turn = asyncio.Semaphore(_AT_ONCE)

        async def one(group: Group) -> Found:
            async with turn:
                return await look(bus.adapter, group.name, group)

        return await asyncio.gather(*map(one, await bus.adapter.groups()))

    found = run(work, broker, url)
    if as_json:
        for one in found:
            typer.echo(json.dumps(object_of(one)))
        return
    for line in as_table(found, width(), colour=sys.stdout.isatty()):
        typer.echo(line)
    typer.echo(f"{len(found)} group{'' if len(found) == 1 else 's'}", err=True)


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="As `list` and `status` show them.")],
    force: Annotated[bool, typer.Option("--force", help="Also one for which messages wait: they go with it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
    broker: Broker = None,
    url: Url = None,
) -> None:
    """Remove groups for good, with their inbox, their retries and their dead letters. Topics stay. Asks first.

    Never one that is read: stop its service first. One for which messages wait is left, unless --force. A removal that
    was interrupted can be repeated.
    """
    for name in names:
        try:
            logical(name, name)
        except DeclarationError as error:
            fail(str(error))
    if not yes and not sys.stdin.isatty():
        fail("removing is for good, and there is nobody to ask: say --yes")

    async def work(bus: Bus) -> bool:
        return all([await _remove(bus, name, force, yes, as_json) for name in dict.fromkeys(names)])

    if not run(work, broker, url):
        raise typer.Exit(FAILED)


async def _remove(bus: Bus, name: str, force: bool, yes: bool, as_json: bool) -> bool:
    found = await look(bus.adapter, name, None)
    if found.group is None:
        return _left(name, found.problem, as_json)
    backlog = found.backlog
    if backlog is not None and backlog.consumers:
        return _left(name, str(GroupInUse(name, backlog.consumers)), as_json)
    waiting = 0 if backlog is None else _waiting(backlog)
    if waiting and backlog is not None and not force:
        return _left(name, f"{_told(backlog)}: they would go with it; --force removes it all the same", as_json)
    with_them = f" with {waiting:,} message{'' if waiting == 1 else 's'} that wait" if waiting else ""
    if not yes and not typer.confirm(f"remove the group {name}{with_them} for good?", err=True):
        return True
    try:
        await bus.adapter.disband(name)
    except GroupInUse as error:
        return _left(name, str(error), as_json)
    said = (
        json.dumps({"group": name, "removed": True, "messages": waiting}) if as_json else f"{name}: removed{with_them}"
    )
    typer.echo(said)
    return True


def _left(name: str, why: str, as_json: bool) -> bool:
    if as_json:
        typer.echo(json.dumps({"group": name, "removed": False, "error": why}))
    typer.echo(f"eventkit: {name} is left: {why}", err=True)
    return False


def _waiting(backlog: Backlog) -> int:
    return sum(count or 0 for count in (backlog.ready, backlog.in_flight, backlog.delayed, backlog.dead))


def _told(backlog: Backlog) -> str:
    counts = {
        "ready": backlog.ready,
        "in flight": backlog.in_flight,
        "waiting for a retry": backlog.delayed,
        "dead letters": backlog.dead,
    }
    waiting = _waiting(backlog)
    parts = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return f"{waiting:,} message{' waits' if waiting == 1 else 's wait'} for it ({parts})"
