"""Says when the broker is gone while a command looks on, and when it is back."""

from __future__ import annotations

import asyncio
import logging

import typer

from eventkit.adapter import Adapter
from eventkit.cli.broker import describe

_LOOK = 0.2
"""Seconds between two looks."""
_TELL = ("eventkit", "aiokafka")
"""Loggers that tell it too, in several lines."""


async def watch(adapter: Adapter) -> None:
    """On standard error, until it is cancelled."""
    for name in _TELL:
        logging.getLogger(name).addHandler(logging.NullHandler())
    away = False
    while True:
        error = adapter.error
        if error is not None and not away:
            typer.echo(
                f"{adapter.name} is gone ({describe(error)}); what is published meanwhile may be missed", err=True
            )
        elif error is None and away:
            typer.echo(f"{adapter.name} is back", err=True)
        away = error is not None
        await asyncio.sleep(_LOOK)
