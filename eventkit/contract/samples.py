"""Messages and small things that the checks share."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from pydantic import BaseModel

from eventkit import Command, Event

X = TypeVar("X", bound=Exception)


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Line(BaseModel):
    sku: str
    price: Decimal
    tags: frozenset[str] = frozenset()


class Ordered(Event, topic="orders", key="order"):
    """An event with many kinds of fields."""

    order: str
    lines: list[Line]
    at: datetime
    day: date
    took: timedelta
    reference: UUID
    size: Size
    ratio: float
    big: int
    note: str | None = None
    more: dict[str, list[int | None]]


class Ship(Command, service="shipping"):
    """A command without a reply."""

    order: str
    gifts: int = 0


class Counted(Event, topic="counts", key="key"):
    """One of a sequence of numbers."""

    number: int
    key: str | None = None
    padding: str = ""


def counted(numbers: range, keys: int = 50) -> list[Counted]:
    """An event for each of these numbers, on so many keys in turn."""
    return [Counted(number=number, key=f"k{number % keys}") for number in numbers]


def unusual_order() -> Ordered:
    """One with whatever JSON finds hard."""
    return Ordered(
        order="Auftrag №1 ✓",
        lines=[
            Line(sku="a\n\t\"'\\ \x7f", price=Decimal("0.10"), tags=frozenset({"rot", "赤"})),
            Line(sku="", price=Decimal("1e3")),
        ],
        at=datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
        day=date(1, 1, 1),
        took=timedelta(days=400, microseconds=1),
        reference=UUID(int=1),
        size=Size.LARGE,
        ratio=0.1 + 0.2,
        big=2**63 + 1,
        more={"": [None, -1], "ключ": []},
    )


async def a_moment(longest: float) -> None:
    """Wait for any time up to so many seconds."""
    await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 not a secret


async def raises(error: type[X], doing: Awaitable[object]) -> X:
    """The error that it raises; AssertionError if it raises none."""
    try:
        await doing
    except error as raised:
        return raised
    raise AssertionError(f"{error.__name__} was not raised")
