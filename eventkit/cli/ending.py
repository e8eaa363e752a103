"""How a command ends that did not do what was asked: a line, and an exit code."""

from __future__ import annotations

from typing import NoReturn

import typer

USAGE, FAILED, STOPPED = 2, 1, 130


def fail(text: str, code: int = USAGE) -> NoReturn:
    """Say it, and end."""
    typer.echo(f"eventkit: {text}", err=True)
    raise typer.Exit(code)
