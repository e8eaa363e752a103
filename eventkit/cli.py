"""The command line: its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from eventkit import (
    cli_dead_letters,
    cli_docs,
    cli_doctor,
    cli_health,
    cli_new,
    cli_produce,
    cli_request,
    cli_run,
    cli_status,
    cli_tail,
    cli_topics,
)
from eventkit.cli_asked import Teaching
from eventkit.cli_root import Root

app = typer.Typer(cls=Root, no_args_is_help=True, pretty_exceptions_enable=False)

app.command()(cli_run.run)
app.command()(cli_new.new)
app.add_typer(cli_dead_letters.app, name="dead-letters")
app.add_typer(cli_docs.app, name="docs")
app.add_typer(cli_topics.app, name="topics")
app.command(cls=Teaching)(cli_produce.publish)
app.command(cls=Teaching)(cli_produce.send)
app.command(cls=Teaching)(cli_request.request)
app.command()(cli_status.status)
app.command()(cli_tail.tail)
app.command()(cli_doctor.doctor)
app.command()(cli_health.health)


@app.callback()
def _root(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the whole trace of what went wrong. May stand anywhere.")
    ] = False,
) -> None:
    """Events and commands for Python services. The broker is a setting: EVENTKIT_BROKER, EVENTKIT_URL."""


def main() -> None:
    app()
