"""A service against what others have committed to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eventkit.asyncapi.contract import load
from eventkit.asyncapi.misfits import misfits
from eventkit.messages import Command, Event
from eventkit.service import Service


def assert_fits(committed: str | Path, service: Service, /, *classes: type[Event | Command[Any]]) -> None:
    """What a service reads and sends fits the AsyncAPI document in this file, which another team committed.

    Raises AssertionError with a line for each event that its publishers no longer publish, or write in a way that the
    class here cannot read, and for each command that its owner no longer takes as it is sent here. With `classes`
    exactly those are looked at; without, all that has a channel in the document. Raises asyncapi.DocumentError for a
    file that is no document, or where nothing is left to look at.
    """
    found = misfits(load(Path(committed)), service, *classes)
    if found:
        lines = "\n".join(f"  {change.where}: {change.text}" for change in found)
        raise AssertionError(f"{service.name} no longer fits {committed}:\n{lines}")
