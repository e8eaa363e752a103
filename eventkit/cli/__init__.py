"""The command line: its commands."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from eventkit.cli import (
    dead_letters,
    docs,
    doctor,
    groups,
    health,
    new,
    produce,
    request,
    run,
    status,
    tail,
    topics,
    ui,
)
from eventkit.cli.asked import Teaching
from eventkit.cli.root import Root

_HELP = {"help_option_names": ["--help", "-h"]}

app = typer.Typer(cls=Root, no_args_is_help=True, pretty_exceptions_enable=False, context_settings=_HELP)

app.command()(run.run)
app.command()(new.new)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(docs.app, name="docs")
app.add_typer(topics.app, name="topics")
app.command(cls=Teaching)(produce.publish)
app.command(cls=Teaching)(produce.send)
app.command(cls=Teaching)(request.request)
app.command()(status.status)
app.add_typer(groups.app, name="groups")
app.command()(tail.tail)
app.command()(ui.ui)
app.command()(doctor.doctor)
app.command()(health.health)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"eventkit {metadata.version('faststream-eventkit')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show which release this is.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the whole trace of what went wrong. May stand anywhere.")
    ] = False,
) -> None:
    """Events and commands for Python services. The broker is a setting: EVENTKIT_BROKER, EVENTKIT_URL."""


def main() -> None:
    app()
