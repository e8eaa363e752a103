"""`eventkit topics show | validate | create`: the channels that services need on the broker."""

from __future__ import annotations

import json
from collections.abc import Sequence

import typer

from eventkit import discovery, names
from eventkit.adapter import Address, Group, Provision
from eventkit.asyncapi.declared import Declarations, gather
from eventkit.bus import Bus
from eventkit.cli.broker import Broker, Json, Url, run, width
from eventkit.cli.ending import fail
from eventkit.cli.named import Services, load
from eventkit.cli.table import table
from eventkit.errors import EventkitError
from eventkit.settings import read_settings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The topics, inboxes and groups that services need on the broker.",
)

_HEAD = ("channel", "on the broker", "read by", "written by")


@app.command()
def show(targets: Services, as_json: Json = False, broker: Broker = None) -> None:
    """List what these services declare, with its name on the broker. Asks no broker.

    What is published through a bus or a context, and not returned by a handler, cannot be seen in a declaration.
    """
    try:
        settings = read_settings(discovery.installed())
        found = gather(load(targets))
    except EventkitError as error:
        fail(str(error))
    named = broker or settings.broker
    rows = [
        (str(address), _physical(named, settings.namespace, address), *_sides(found, address))
        for address in found.addresses
    ]
    if as_json:
        for channel, physical, read_by, written_by in rows:
            typer.echo(
                json.dumps(
                    {
                        "channel": channel,
                        "physical": physical or None,
                        "read_by": read_by.split(", ") if read_by else [],
                        "written_by": written_by.split(", ") if written_by else [],
                    }
                )
            )
        return
    for line in table(_HEAD, rows, width()):
        typer.echo(line)


@app.command()
def validate(targets: Services, broker: Broker = None, url: Url = None) -> None:
    """Ask the broker whether all is there; name what is missing, with exit code 1. Creates nothing."""
    _provision(targets, Provision.VALIDATE, broker, url)


@app.command()
def create(targets: Services, broker: Broker = None, url: Url = None) -> None:
    """Create what is missing. New groups begin now: they get what is published from here on, even before they run."""
    _provision(targets, Provision.CREATE, broker, url)


def _provision(targets: Sequence[str], how: Provision, broker: str | None, url: str | None) -> None:
    try:
        found = gather(load(targets))
    except EventkitError as error:
        fail(str(error))
    groups = [group for service in found.services for group, _ in service.groups().values()]
    topics = {operation.address for operation in found.operations if operation.sends}
    wanted: list[Address | Group] = [*groups, *sorted(one for one in topics if one.kind == "topic")]

    async def work(bus: Bus) -> None:
        await bus.adapter.provision(wanted, how)
        verb = "is there" if how is Provision.VALIDATE else "is there now"
        said = ", ".join(group.name for group in groups)
        typer.echo(f"all that {said} need{'s' if len(groups) == 1 else ''} {verb}, on {bus.broker}")

    run(work, broker, url)


def _sides(found: Declarations, address: Address) -> tuple[str, str]:
    here = [operation for operation in found.operations if operation.address == address]
    readers = {operation.group.name for operation in here if operation.group is not None}
    return ", ".join(sorted(readers)), ", ".join(sorted({operation.service for operation in here if operation.sends}))


def _physical(broker: str, namespace: str, address: Address) -> str:
    """Its name there; empty where only the adapter knows it."""
    naming = {"kafka": names.kafka, "rabbit": names.rabbit, "nats": names.nats, "redis": names.redis}.get(broker)
    if naming is None:
        return ""
    if broker == "redis" and address.kind == "inbox":
        return f"{{{naming(namespace).group(address.name)}}}.{names.SUFFIXES['inbox']}"
    return naming(namespace).channel(address.kind, address.name, address.physical)
