"""Dead letters for the page: listed, shown, retried, discarded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from eventkit.bus import Bus
from eventkit.dead_letters import DeadLetters
from eventkit.errors import DeadLetterError
from eventkit.redacting import Redactor
from eventkit.ui import shown

log = logging.getLogger("eventkit")

PAGE = 200
"""Letters that are shown of a group at once: the oldest."""
_SCANNED = 20_000
"""Letters that are looked at to find those that a filter asks for."""
_FAILURES = 20
"""Failures that are told one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which letters of a group are meant."""

    group: str
    ids: tuple[str, ...] = ()
    type: str | None = None
    reason: str | None = None
    all: bool = False

    @property
    def filters(self) -> dict[str, str | None]:
        return {"type": self.type, "reason": self.reason}

    @property
    def narrowed(self) -> bool:
        return bool(self.ids or self.type or self.reason)


class Letters:
    """The dead letters of some groups. One look or deed at a time on each group: some brokers show to one only."""

    def __init__(self, bus: Bus, groups: Collection[str], redactor: Redactor) -> None:
        self._groups = {name: bus.dead_letters(name) for name in groups}
        self._busy = {name: asyncio.Lock() for name in groups}
        self._redactor = redactor

    def __contains__(self, group: object) -> bool:
        return group in self._groups

    async def list(self, chosen: Chosen) -> dict[str, Any]:
        """The oldest of them, and whether there are more. Changes nothing."""
        found: list[dict[str, Any]] = []
        more, scanned = False, 0
        async with self._busy[chosen.group]:
            letters = self._groups[chosen.group].list()
            try:
                async for letter in letters:
                    scanned += 1
                    if len(found) == PAGE or scanned > _SCANNED:
                        more = True
                        break
                    if chosen.type in (None, letter.type) and chosen.reason in (None, letter.reason):
                        found.append(shown.letter(letter, self._redactor))
            finally:
                await letters.aclose()
        return {"group": chosen.group, "letters": found, "more": more}

    async def show(self, group: str, id: str) -> dict[str, Any]:
        """One of them, whole. NoDeadLetter where there is none."""
        async with self._busy[group]:
            return shown.whole_letter(await self._groups[group].show(id), self._redactor)

    async def retry(self, chosen: Chosen, *, force: bool, who: str) -> dict[str, Any]:
        """Have the group try them again: how many were taken up, and which are left."""

        def again(letters: DeadLetters, ids: Sequence[str], which: dict[str, Any]) -> Awaitable[int]:
            return letters.retry(*ids, **which, force=force)

        return await self._do("retried", chosen, again, who)

    async def discard(self, chosen: Chosen, *, who: str) -> dict[str, Any]:
        """Delete them for good: how many were, and which are left."""

        def delete(letters: DeadLetters, ids: Sequence[str], which: dict[str, Any]) -> Awaitable[int]:
            return letters.discard(*ids, **which)

        return await self._do("discarded", chosen, delete, who)

    async def _do(
        self,
        verb: str,
        chosen: Chosen,
        do: Callable[[DeadLetters, Sequence[str], dict[str, Any]], Awaitable[int]],
        who: str,
    ) -> dict[str, Any]:
        failures: list[dict[str, str]] = []
        which = {**chosen.filters, "all": chosen.all}
        async with self._busy[chosen.group]:
            try:
                done = await do(self._groups[chosen.group], chosen.ids, which)
            except DeadLetterError as error:
                if not error.failures:
                    raise
                done = error.done
                failures = [{"id": failure.id, "error": str(failure.error)} for failure in error.failures]
        log.info("%d dead letters of %s were %s from the page, by %s", done, chosen.group, verb, who)
        return {"done": done, "left": len(failures), "failures": failures[:_FAILURES]}
