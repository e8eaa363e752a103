"""`eventkit status`: what waits for groups, on every broker."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Optional

import typer

from eventkit.adapter import Adapter, Address, Backlog, Group, Provision
from eventkit.bus import Bus
from eventkit.cli.broker import FAILED, Broker, Json, Url, describe, groups, run, width
from eventkit.cli.table import lasting, table
from eventkit.errors import NotProvisioned

_HEAD = ("group", "ready", "in flight", "retries", "dead", "oldest")
_CLEAR = "\x1b[H\x1b[J"
_PATIENCE = 15.0
"""Seconds that one group may take."""


@dataclass(frozen=True, slots=True)
class _Found:
    """One group, as it was found."""

    name: str
    backlog: Backlog | None
    problem: str = ""


def status(
    targets: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[MODULE:SERVICE ...]", help="All groups of these services."),
    ] = None,
    group: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--group",
            "-g",
            metavar="NAME",
            help="A group by its name. What is ready and in flight is not known then: only a service says what its "
            "groups read.",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")] = 2.0,
    as_json: Json = False,
    broker: Broker = None,
    url: Url = None,
) -> None:
    """Show what waits for each group: messages that are ready, in flight, or wait for a retry; dead letters.

    Changes nothing, and may run beside the services. "-": this broker cannot say. Exit code 1 where a group is missing.
    """
    wanted = groups([*(targets or []), *(group or [])])

    async def work(bus: Bus) -> bool:
        while True:
            found = await asyncio.gather(*(_measure(bus.adapter, name, known) for name, known in wanted.items()))
            if as_json:
                for one in found:
                    typer.echo(json.dumps(_as_json(one)))
            else:
                _print(found, wanted, clear=watch and sys.stdout.isatty())
            if not watch:
                return all(one.backlog is not None for one in found)
            await asyncio.sleep(interval)

    if not run(work, broker, url):
        raise typer.Exit(FAILED)


async def _measure(adapter: Adapter, name: str, known: Group | None) -> _Found:
    group = known or Group(name, ())
    try:
        async with asyncio.timeout(_PATIENCE):
            await adapter.provision([Address("dead", name)], Provision.VALIDATE)
            backlog = await adapter.measure(group)
    except NotProvisioned:
        return _Found(name, None, f"not on this {adapter.name}: it has never run here, or the namespace is another")
    except Exception as error:  # noqa: BLE001 the others are shown all the same
        return _Found(name, None, f"cannot be measured: {describe(error)}")
    if known is None:
        backlog = Backlog(ready=None, in_flight=None, delayed=backlog.delayed, dead=backlog.dead)
    return _Found(name, backlog)


def _print(found: Sequence[_Found], wanted: Mapping[str, Group | None], *, clear: bool) -> None:
    measured = [(one.name, one.backlog) for one in found if one.backlog is not None]
    rows = [
        (name, *(_shown(count) for count in (b.ready, b.in_flight, b.delayed, b.dead)), lasting(b.oldest) or "-")
        for name, b in measured
    ]
    lines = list(table(_HEAD, rows, width(), right=_HEAD[1:-1]))
    lines += [f"{one.name}: {one.problem}" for one in found if one.backlog is None]
    typer.echo((_CLEAR if clear else "") + "\n".join(lines))
    if any(wanted[name] is None for name, _ in measured):
        typer.echo("what is ready is known of a service: name it as module:service", err=True)


def _shown(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _as_json(one: _Found) -> dict[str, Any]:
    if one.backlog is None:
        return {"group": one.name, "error": one.problem}
    b = one.backlog
    return {
        "group": one.name,
        "ready": b.ready,
        "in_flight": b.in_flight,
        "delayed": b.delayed,
        "dead": b.dead,
        "oldest_seconds": None if b.oldest is None else round(b.oldest.total_seconds(), 3),
    }
