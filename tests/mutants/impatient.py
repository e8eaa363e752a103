"""A plugin for pytest: checks wait less long for what a break keeps from coming. In memory all comes in a moment."""

from __future__ import annotations

from eventkit.contract import checks, groups, letters

PATIENCE = 5.0
"""Seconds."""

for _waits in (checks.eventually, letters.dead_letters, letters.listed, groups._until):
    _waits.__defaults__ = (PATIENCE,)
