"""The event loop under the tests: asyncio's own; or uvloop, for a whole run by EVENTKIT_TEST_LOOP=uvloop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any, get_args

import pytest

from eventkit.processes import loop
from eventkit.settings import Loop

VARIABLE = "EVENTKIT_TEST_LOOP"


def wanted() -> Loop:
    """What this run is asked for."""
    said: Any = os.environ.get(VARIABLE) or "asyncio"
    if said not in get_args(Loop):
        raise pytest.UsageError(f"{VARIABLE}={said}: it is one of {', '.join(get_args(Loop))}")
    found: Loop = said
    return found


def install() -> None:
    """Every loop that this process makes from now on is of the kind that is wanted."""
    make = loop.factory(wanted())
    if make is not None:
        asyncio.set_event_loop_policy(_policy(make))


def environment() -> Mapping[str, str]:
    """For processes of ours that the tests start: they run on the same loop."""
    return {} if wanted() == "asyncio" else {"EVENTKIT_LOOP": wanted()}


def _policy(make: Callable[[], asyncio.AbstractEventLoop]) -> asyncio.AbstractEventLoopPolicy:
    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return make()

    return Policy()
