"""RabbitMQ's confirms, without a broker: which message each of them answers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("aiormq")

from aiormq import exceptions as amqp

from eventkit.adapter import Address, Message
from eventkit_rabbit.confirms import Answer, Call, Channel, Job, Route

LATE = TimeoutError("not answered")


def written(count: int) -> tuple[Channel, list[Answer]]:
    """A channel on which so many messages were written, and their answers."""
    channel = Channel(None)
    channel.wire = cast("Any", SimpleNamespace(frame_max=10_000, write=lambda *parts: None))
    channel.channel = cast("Any", SimpleNamespace(number=1))
    answers: list[Answer] = [LATE] * count
    route = Route("topic", "key", mandatory=False, returned=None)
    message = Message(Address("topic", "t"), "T", None, {}, b"")
    channel.write(Call(answers), [Job(message, route, b"", place) for place in range(count)])
    return channel, answers


def test_a_refusal_is_no_confirm() -> None:
    async def main() -> None:
        channel, answers = written(3)
        channel.confirmed(2, False, False)
        assert answers[0] is answers[2] is LATE
        assert isinstance(answers[1], amqp.DeliveryError)
        channel.confirmed(3, True, True)
        assert answers[0] is answers[2] is None
        assert isinstance(answers[1], amqp.DeliveryError)

    asyncio.run(main())


def test_what_cannot_be_written_does_not_count_as_written() -> None:
    async def main() -> None:
        channel, _ = written(1)
        answers: list[Answer] = [LATE] * 2
        names = ("key", "k" * 300, "key")
        message = Message(Address("topic", "t"), "T", None, {}, b"")
        jobs = [Job(message, Route("topic", name, mandatory=True, returned=None), b"", 0) for name in names]
        with pytest.raises(ValueError, match="range"):
            channel.write(Call(answers), jobs)
        channel.write(Call(answers), [Job(message, Route("topic", "key", False, None), b"", 1)])
        channel.confirmed(2, False, True)  # the second that the broker was given
        assert answers == [LATE, None]

    asyncio.run(main())


def test_what_was_not_answered_goes_down_with_its_channel() -> None:
    async def main() -> None:
        channel, answers = written(3)
        channel.confirmed(1, False, True)
        channel.closed(ConnectionError("gone"))
        assert answers[0] is None
        assert all(isinstance(answer, ConnectionError) for answer in answers[1:])

    asyncio.run(main())
