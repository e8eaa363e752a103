"""Who cancelled: one of us, or a broker's client by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from eventkit.cancelling import unbroken


def test_what_a_client_cancels_by_itself_is_a_lost_connection() -> None:
    async def main() -> None:
        given_up = asyncio.get_running_loop().create_future()
        given_up.cancel()
        await unbroken(given_up)

    with pytest.raises(ConnectionAbortedError, match="the client gave up"):
        asyncio.run(main())


async def _swallows() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise ConnectionError("the connection was lost in this moment") from None


@pytest.mark.parametrize("call", [lambda: asyncio.Event().wait(), _swallows], ids=["cancelled", "answered by an error"])
def test_who_cancels_our_task_ends_it_whatever_the_client_makes_of_that(call: Callable[[], Awaitable[None]]) -> None:
    async def again_and_again() -> None:
        while True:
            try:
                await unbroken(call())
            except ConnectionError:
                await asyncio.sleep(0)

    async def main() -> bool:
        ours = asyncio.create_task(again_and_again())
        await asyncio.sleep(0)
        ours.cancel()
        await asyncio.wait([ours], timeout=5)
        ended = ours.cancelled()
        ours.cancel()
        return ended

    assert asyncio.run(main())


def test_a_bound_in_time_around_it_holds() -> None:
    async def main() -> None:
        async with asyncio.timeout(0.01):
            await unbroken(_swallows())

    with pytest.raises(TimeoutError):
        asyncio.run(main())


def test_what_it_returns_and_raises_is_passed_on() -> None:
    async def answers() -> int:
        return 3

    async def fails() -> None:
        raise ValueError("on purpose")

    assert asyncio.run(unbroken(answers())) == 3
    with pytest.raises(ValueError, match="on purpose"):
        asyncio.run(unbroken(fails()))
