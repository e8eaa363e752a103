"""Backlogs: what waits for a group, or why that cannot be said."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from eventkit.adapter import Adapter, Address, Backlog, Group, Provision
from eventkit.errors import EventkitError, NotProvisioned

_PATIENCE = 15.0
"""Seconds that one group may take."""


@dataclass(frozen=True, slots=True)
class Found:
    """One group, as it was found."""

    name: str
    group: Group | None
    backlog: Backlog | None
    problem: str = ""
    """Why there is no backlog."""

    @property
    def unread(self) -> bool:
        """Do messages wait that nobody reads?"""
        backlog = self.backlog
        return backlog is not None and backlog.consumers == 0 and bool(backlog.ready or backlog.delayed)


async def look(adapter: Adapter, name: str, known: Group | None) -> Found:
    """`known`: what a service says that the group reads; None: as the broker says. Changes nothing, raises nothing."""
    group = known
    try:
        async with asyncio.timeout(_PATIENCE):
            if group is None:
                group = next(iter(await adapter.groups([name])), None)
            else:
                await adapter.provision([Address("dead", name)], Provision.VALIDATE)
            if group is not None:
                return Found(name, group, await adapter.measure(group))
    except NotProvisioned as error:
        if known is None:
            return Found(name, group, None, f"not whole, as after a removal that was interrupted: {error}")
    except Exception as error:  # noqa: BLE001 the others are shown all the same
        return Found(name, group, None, f"cannot be measured: {_said(error)}")
    return Found(name, None, None, f"not on this {adapter.name}: it has never run here, or the namespace is another")


def _said(error: Exception) -> str:
    said = str(error).strip()
    if isinstance(error, TimeoutError) and not said:
        return f"no answer in {_PATIENCE:g} s"
    return said if isinstance(error, EventkitError) and said else f"{type(error).__name__}: {said}".rstrip(": ")
