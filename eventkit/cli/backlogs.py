"""What waits for groups, as it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import typer

from eventkit.adapter import Address, Waiting
from eventkit.backlogs import Found
from eventkit.cli.table import lasting, printable, table

_HEAD = ("group", "consumers", "ready", "in flight", "retries", "dead", "oldest")
_UNREAD = "  nobody reads it"


def as_table(found: Sequence[Found], width: int, *, colour: bool) -> Iterator[str]:
    """Lines: of each group, and of each of its sources below it. Red: messages that nobody reads."""
    rows: list[tuple[str, ...]] = []
    unread: list[bool] = []
    for one in found:
        backlog = one.backlog
        if backlog is None:
            continue
        counts = (backlog.consumers, backlog.ready, backlog.in_flight, backlog.delayed, backlog.dead)
        rows.append((one.name, *map(_shown, counts), _age(backlog.oldest) + (_UNREAD if one.unread else "")))
        rows += [_row(address, waiting) for address, waiting in backlog.sources.items()]
        unread += [one.unread] + [bool(one.unread and waiting.ready) for waiting in backlog.sources.values()]
    lines = table(_HEAD, rows, width, right=_HEAD[1:-1])
    for line, red in zip(lines, [False, *unread], strict=False):
        yield typer.style(line, fg=typer.colors.RED) if red and colour else line
    for one in found:
        if one.backlog is None:
            yield f"{one.name}: {printable(one.problem)}"


def as_json(one: Found) -> dict[str, Any]:
    if one.backlog is None:
        return {"group": one.name, "error": one.problem}
    b = one.backlog
    return {
        "group": one.name,
        "consumers": b.consumers,
        "ready": b.ready,
        "in_flight": b.in_flight,
        "delayed": b.delayed,
        "dead": b.dead,
        "oldest_seconds": _seconds(b.oldest),
        "sources": {
            str(address): {"ready": w.ready, "in_flight": w.in_flight, "oldest_seconds": _seconds(w.oldest)}
            for address, w in b.sources.items()
        },
    }


def _row(address: Address, waiting: Waiting) -> tuple[str, ...]:
    return (f"  {address}", "", _shown(waiting.ready), _shown(waiting.in_flight), "", "", _age(waiting.oldest))


def _shown(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _age(age: timedelta | None) -> str:
    return lasting(age) or "-"


def _seconds(age: timedelta | None) -> float | None:
    return None if age is None else round(age.total_seconds(), 3)
