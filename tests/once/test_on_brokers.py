"""On each real broker: a message that is there twice, as two copies that the broker cannot tell for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from eventkit import Depends, Event, Service
from eventkit.contract import Backend
from eventkit.contract.checks import bus, eventually, fresh_namespace
from tests.backends import ALL
from tests.once.copies import copies_of
from tests.once.databases import fresh, work
from tests.once.loops import in_loop
from tests.once.test_sql_once import store_on
from tests.wanted import wanted


class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str


class ParcelBooked(Event, topic="parcels"):
    order_id: str


@pytest.mark.parametrize("name", ALL)
def test_it_is_handled_once(
    name: str, backend: Callable[[str], Backend], pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    if name not in wanted(pytestconfig):
        pytest.skip(f"{name} is not asked for")
    here = backend(name)
    database = fresh("sqlite", tmp_path, None)

    @in_loop
    async def main() -> None:
        shipping, reader = Service("shipping"), Service("reader")
        got: list[str] = []
        async with store_on(database) as store:

            @shipping.handler(once=store)
            async def book(
                event: OrderPlaced, session: Annotated[AsyncSession, Depends(store.session)]
            ) -> ParcelBooked:
                await session.execute(insert(work).values(order_id=event.order_id))
                return ParcelBooked(order_id=event.order_id)

            @reader.handler
            async def note(event: ParcelBooked) -> None:
                got.append(event.order_id)

            async with bus(here, fresh_namespace()) as on, on.run(shipping, reader) as running:
                for order in range(5):
                    message = on.encode(OrderPlaced(order_id=str(order)))
                    first, second = copies_of(message)
                    await on.deliver([first])
                    await on.deliver([second])
                counts = running.counts["shipping"]
                await eventually(lambda: counts.handled + counts.repeated == 10, "both copies arrive", 30)
                assert (counts.handled, counts.repeated, counts.dead) == (5, 5, 0)
                await eventually(lambda: len(got) == 5, "what it sends arrives", 30)
                assert sorted(got) == ["0", "1", "2", "3", "4"]
        assert (database.work(), database.handled(), database.waiting()) == (5, 5, 0)

    main()
