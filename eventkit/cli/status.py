"""`eventkit status`: what waits for groups, on every broker."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Annotated, Optional

import typer

from eventkit.backlogs import look
from eventkit.bus import Bus
from eventkit.cli.backlogs import as_json as object_of
from eventkit.cli.backlogs import as_table
from eventkit.cli.broker import Broker, Json, Url, all_groups, groups, run, width
from eventkit.cli.ending import FAILED

_CLEAR = "\x1b[H\x1b[J"


def status(
    targets: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="MODULE:SERVICE",
            help="All groups of these services. Default: the service in EVENTKIT_SERVICE, else all on the broker.",
        ),
    ] = None,
    group: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--group",
            "-g",
            metavar="NAME",
            help="A group by its name.",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")] = 2.0,
    as_json: Json = False,
    broker: Broker = None,
    url: Url = None,
) -> None:
    """Show who reads each group, and what waits for it: ready, in flight, in a retry, dead letters; and by topic.

    Changes nothing, and may run beside the services. "-": this broker cannot say. Red: messages that nobody reads. Exit
    code 1 where a group is missing.
    """
    said = groups([*(targets or []), *(group or [])], all_else=True)

    async def work(bus: Bus) -> bool:
        wanted = await all_groups(bus, said)
        while True:
            found = await asyncio.gather(*(look(bus.adapter, name, known) for name, known in wanted.items()))
            wanted.update({one.name: one.group for one in found if one.group is not None})
            if as_json:
                for one in found:
                    typer.echo(json.dumps(object_of(one)))
            else:
                terminal = sys.stdout.isatty()
                lines = as_table(found, width(), colour=terminal)
                typer.echo((_CLEAR if watch and terminal else "") + "\n".join(lines))
            if not watch:
                return all(one.backlog is not None for one in found)
            await asyncio.sleep(interval)

    if not run(work, broker, url):
        raise typer.Exit(FAILED)
