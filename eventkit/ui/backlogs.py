"""What waits for groups, measured once for all who watch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from eventkit.adapter import Adapter, Backlog, Group
from eventkit.backlogs import look
from eventkit.ui.rates import KEPT

_MINUTE = 30
"""Looks that are a minute, at one every two seconds."""


class Measured:
    """One group, as it was found last."""

    def __init__(self, group: Group, service: str) -> None:
        self.group = group
        self.service = service
        self.backlog: Backlog | None = None
        self.problem = "not measured yet"
        """Empty: none."""
        self._ready: deque[int | None] = deque(maxlen=KEPT)
        self._dead: deque[int] = deque(maxlen=_MINUTE)

    async def measure(self, adapter: Adapter) -> None:
        found = await look(adapter, self.group.name, self.group)
        self.backlog, self.problem = found.backlog, found.problem
        if self.backlog is None:
            return
        self._ready.append(self.backlog.ready)
        if self.backlog.dead is not None:
            self._dead.append(self.backlog.dead)

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.group.name, "service": self.service, "problem": self.problem}
        backlog = self.backlog
        if backlog is None:
            return found
        return found | {
            "ready": backlog.ready,
            "in_flight": backlog.in_flight,
            "delayed": backlog.delayed,
            "dead": backlog.dead,
            "failing": max(0, self._dead[-1] - self._dead[0]) if self._dead else 0,
            "oldest": None if backlog.oldest is None else round(backlog.oldest.total_seconds()),
            "consumers": backlog.consumers,
            "sources": [
                {"address": str(address), "ready": waiting.ready, "in_flight": waiting.in_flight}
                for address, waiting in backlog.sources.items()
            ],
            "past": list(self._ready),
        }


class Backlogs:
    """All groups of some services. Changes nothing, and may run beside them."""

    def __init__(self, adapter: Adapter, groups: Mapping[str, Sequence[Group]]) -> None:
        """`groups`: by service."""
        self._adapter = adapter
        self.groups = {group.name: Measured(group, service) for service, own in groups.items() for group in own}

    async def measure(self) -> None:
        """All of them, once."""
        await asyncio.gather(*(group.measure(self._adapter) for group in self.groups.values()))

    def as_json(self) -> list[dict[str, Any]]:
        return [group.as_json() for group in self.groups.values()]
