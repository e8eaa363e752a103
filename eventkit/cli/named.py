"""The services that a command line names."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from eventkit.cli.ending import fail
from eventkit.errors import EventkitError
from eventkit.loading import NotLoaded, load_services
from eventkit.service import Service

Services = Annotated[list[str], typer.Argument(metavar="MODULE:SERVICE", help="Such as shop.orders:service.")]


def load(names: Sequence[str]) -> list[Service]:
    """Those of the current folder first. Ends the command where one cannot be had."""
    sys.path.insert(0, os.getcwd())
    try:
        return load_services(names)
    except (EventkitError, NotLoaded) as error:
        fail(str(error))
