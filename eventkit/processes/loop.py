"""The event loop of a process that runs services."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from eventkit.errors import SettingsError
from eventkit.settings import Loop


def factory(wanted: Loop) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop; None: asyncio itself. SettingsError where uvloop is asked for and not there."""
    if wanted == "asyncio":
        return None
    if find_spec("uvloop") is None:
        raise SettingsError("EVENTKIT_LOOP=uvloop: it is not installed; pip install 'faststream-eventkit[speed]'")
    new: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
    return new
