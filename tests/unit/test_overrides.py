"""Overrides of dependencies in tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import pytest

from eventkit import DeclarationError, Depends, Event, Service
from eventkit.testing import run

ended: list[str] = []


async def get_url() -> str:
    return "postgresql://production"


async def get_session(url: Annotated[str, Depends(get_url)]) -> AsyncIterator[str]:
    yield f"a session of {url}"
    ended.append(url)


class OrderPlaced(Event, topic="overrides.orders"):
    order_id: str


class Booked(Event, topic="booked"):
    by: str


service = Service("shipping")


@service.handler
async def book(event: OrderPlaced, session: Annotated[str, Depends(get_session)]) -> Booked:
    return Booked(by=session)


def booked_by(**overrides: object) -> str:
    given = {globals()[name]: instead for name, instead in overrides.items()}

    async def main() -> str:
        async with run(service, overrides=given) as harness:  # type: ignore[arg-type]
            await harness.publish(OrderPlaced(order_id="1"))
            await harness.idle()
            (found,) = harness.published(Booked)
            return found.by

    return asyncio.run(main())


def test_a_dependency_is_replaced_at_any_depth_and_only_while_the_test_runs() -> None:
    async def fake_session() -> AsyncIterator[str]:
        yield "a fake"
        ended.append("fake")

    ended.clear()
    assert booked_by() == "a session of postgresql://production"
    assert booked_by(get_session=lambda: "no session") == "no session"
    assert booked_by(get_url=lambda: "sqlite://") == "a session of sqlite://"
    assert booked_by(get_session=fake_session) == "a fake"
    assert booked_by() == "a session of postgresql://production"
    assert ended == ["postgresql://production", "sqlite://", "fake", "postgresql://production"]


def test_an_override_may_have_dependencies() -> None:
    def fake(url: Annotated[str, Depends(get_url)]) -> str:
        return f"a fake of {url}"

    assert booked_by(get_session=fake) == "a fake of postgresql://production"


def test_what_nobody_depends_on_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"no handler of these services depends on run"):
        booked_by(run=lambda: 1)
    with pytest.raises(DeclarationError, match="give a function, such as lambda: fake, not str"):
        booked_by(get_url="sqlite://")
    assert booked_by() == "a session of postgresql://production"
