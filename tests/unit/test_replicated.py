"""EVENTKIT_REDIS__WAIT: what is answered when, with a link that answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from eventkit import NotReplicated
from eventkit_redis import RedisSettings
from eventkit_redis.link import Call, command
from eventkit_redis.replicated import Replicated

SETTINGS = RedisSettings(wait=2, wait_timeout=timedelta(milliseconds=300))


class Wire:
    """Keeps the calls; a test answers them."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def call(self, wire: Sequence[bytes], wanted: int, timeout: float) -> Call:
        call = Call(wire, wanted, timeout, asyncio.get_running_loop().create_future())
        self.calls.append(call)
        return call

    def answer(self, *replies: object, error: Exception | None = None) -> None:
        call = self.calls[-1]
        call.replies = list(replies)
        call.end(error)


def run(check: Callable[[Wire, Replicated], Coroutine[Any, Any, None]]) -> None:
    async def inside() -> None:
        wire = Wire()
        async with asyncio.timeout(5):
            await check(wire, Replicated(wire, SETTINGS))  # type: ignore[arg-type]

    asyncio.run(inside())


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_what_enough_replicas_have_is_answered_as_by_redis() -> None:
    async def check(wire: Wire, replicated: Replicated) -> None:
        call = replicated.call([b"XADD"], 1, 5.0)
        await turn()
        assert wire.calls[0].wire == (b"XADD", command("WAIT", 2, 300))
        assert not call.future.done()
        wire.answer(b"1-0", 2)
        await call.future
        assert (call.replies, call.error) == ([b"1-0"], None)

    run(check)


def test_what_too_few_have_is_said_and_refusals_stay_what_they_are() -> None:
    async def check(wire: Wire, replicated: Replicated) -> None:
        refused = ResponseError("OOM")
        call = replicated.call([b"a", b"b", b"c", b"d"], 4, 5.0)
        await turn()
        wire.answer(b"1-0", None, refused, -1, 1)
        await call.future
        first, *rest = call.replies
        assert isinstance(first, NotReplicated)
        assert "1 of 2 replicas" in str(first)
        assert "same id" in str(first)
        assert rest == [None, refused, -1]

    run(check)


def test_each_message_has_an_error_of_its_own() -> None:
    async def check(wire: Wire, replicated: Replicated) -> None:
        call = replicated.call([b"a", b"b"], 2, 5.0)
        await turn()
        wire.answer(b"1-0", b"1-1", 0)
        await call.future
        assert call.replies[0] is not call.replies[1]  # the bus writes into it which message it is about

    run(check)


def test_what_came_meanwhile_shares_the_next_wait() -> None:
    async def check(wire: Wire, replicated: Replicated) -> None:
        first = replicated.call([b"a"], 1, 5.0)
        await turn()
        second, third = replicated.call([b"b"], 1, 5.0), replicated.call([b"c"], 2, 5.0)
        await turn()
        assert len(wire.calls) == 1
        wire.answer(b"1-0", 2)
        await turn()
        assert len(wire.calls) == 2
        assert wire.calls[1].wanted == 4
        wire.answer(b"2-0", b"3-0", 1, 2)
        await asyncio.gather(first.future, second.future, third.future)
        assert (first.replies, second.replies, third.replies) == ([b"1-0"], [b"2-0"], [b"3-0", 1])

    run(check)


@pytest.mark.parametrize("before_wait", [True, False])
def test_without_the_answer_to_wait_nothing_is_known(before_wait: bool) -> None:
    """The primary has it, and dies: that is no confirmation."""

    async def check(wire: Wire, replicated: Replicated) -> None:
        call = replicated.call([b"a"], 1, 5.0)
        await turn()
        if before_wait:
            wire.answer(b"1-0", error=RedisConnectionError("gone"))
        else:
            wire.answer(b"1-0", ResponseError("NOPERM"))
        await call.future
        assert call.replies == []
        assert isinstance(call.error, RedisConnectionError if before_wait else ResponseError)

    run(check)


def test_what_waited_too_long_is_not_sent() -> None:
    async def check(wire: Wire, replicated: Replicated) -> None:
        first = replicated.call([b"a"], 1, 5.0)
        await turn()
        late = replicated.call([b"b"], 1, 0.0)
        await turn()
        wire.answer(b"1-0", 2)
        await asyncio.gather(first.future, late.future)
        assert isinstance(late.error, RedisTimeoutError)
        assert len(wire.calls) == 1

    run(check)


def test_settings() -> None:
    assert RedisSettings().wait == 0
    with pytest.raises(ValidationError, match="wait"):
        RedisSettings(wait=-1)
    with pytest.raises(ValidationError, match="wait_timeout"):
        RedisSettings(wait_timeout=timedelta(seconds=6))
