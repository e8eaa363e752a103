"""Tables and texts as a terminal shows them (pure): what messages hold cannot write lines or colours there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain, islice

_PAGE = 200
"""Rows that are looked at to find how wide the columns are."""
_UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_UNPRINTABLE |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_KEEPING_LINES = {code: shown for code, shown in _UNPRINTABLE.items() if code not in (ord("\n"), ord("\t"))}


def printable(text: str) -> str:
    """In one line."""
    return text.translate(_UNPRINTABLE)


def printable_lines(text: str) -> str:
    """Its line breaks kept: a stack, a pretty body."""
    return text.translate(_KEEPING_LINES)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], width: int, right: Sequence[str] = ()) -> Iterator[str]:
    """Lines in columns, as the rows come. The last column is cut at so many characters in all; `right`: headings of
    the columns whose values stand to the right."""
    rest = iter(rows)
    first = [[printable(cell) for cell in row] for row in islice(rest, _PAGE)]
    if not first:
        return
    widths = [max(len(row[at]) for row in (head, *first)) for at in range(len(head))]
    for row in chain([head], first, ([printable(cell) for cell in row] for row in rest)):
        cells = [
            cell.rjust(size) if name in right else cell.ljust(size)
            for cell, size, name in zip(row[:-1], widths, head, strict=False)
        ]
        last = row[-1].rjust(widths[-1]) if head[-1] in right else row[-1]
        line = "  ".join([*cells, last]).rstrip()
        yield line if len(line) <= width else line[: width - 1] + "…"


def ago(when: datetime | None, now: datetime) -> str:
    """How long ago, in its two largest units: `2 h 5 min`."""
    return "" if when is None else lasting(now - when)


def lasting(time: timedelta | None) -> str:
    """A time in its two largest units."""
    if time is None:
        return ""
    left = max(round(time.total_seconds()), 0)
    parts = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
