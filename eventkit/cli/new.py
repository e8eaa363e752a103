"""`eventkit new`: a small project that works."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from eventkit.cli.ending import FAILED, fail
from eventkit.cli.project import package_name, write_project
from eventkit.errors import DeclarationError
from eventkit.testing.brokers import NAMES


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the project and its service, such as order-service.")],
    broker: Annotated[
        str, typer.Option(metavar="|".join(NAMES), help="What compose.yaml and .env.example are for.")
    ] = "nats",
    folder: Annotated[Path, typer.Option("--in", metavar="FOLDER", help="Where it is made.")] = Path(),
) -> None:
    """Write a small project that works: a service, its tests, a compose file for the broker, CI.

    It is made in a folder of its name. Nothing is written over.
    """
    if broker not in NAMES:
        fail(f"--broker {broker}: it is {', '.join(NAMES[:-1])} or {NAMES[-1]}; memory needs nothing")
    if not folder.is_dir():
        fail(f"--in {folder}: there is no such folder")
    try:
        package = package_name(name)
        made = write_project(name, broker, folder)
    except DeclarationError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{folder / name} cannot be written: {error.strerror or error}", FAILED)
    typer.echo(
        f"made {made}\n\n"
        f"  cd {shlex.quote(str(made))}\n"
        "  pip install -e '.[dev]'\n"
        "  pytest\n"
        f"  eventkit run                      {package}.service:service, in memory\n"
        f"  docker compose up -d --wait       {broker}; README.md goes on from here"
    )
