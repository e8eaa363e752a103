"""A serializer that is swapped, all the way: published, failed, tried again, and kept as a dead letter."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
from pydantic import BaseModel

from eventkit import Event, GiveUp, Service, testing


class Weighed(Event, topic="weighed"):
    grams: int


class Msgpack:
    content_type = "application/msgpack"

    def encode(self, message: BaseModel, /) -> bytes:
        return bytes(msgpack.packb(message.model_dump(mode="json", by_alias=True)))

    def decode(self, body: bytes, as_: type[Any], /) -> Any:
        return as_.model_validate(msgpack.unpackb(body))

    def data(self, body: bytes, /) -> object:
        return msgpack.unpackb(body)


def test_messages_are_written_and_read_by_it_through_retries_and_dead_letters() -> None:
    service = Service("scale")
    seen: list[int] = []

    @service.handler
    async def weigh(event: Weighed) -> None:
        seen.append(event.grams)
        if event.grams == 0:
            raise GiveUp("nothing on it")
        if seen.count(event.grams) == 1:
            raise ValueError("once more")

    async def main() -> None:
        async with testing.run(service, serializer=Msgpack()) as t:
            await t.publish(Weighed(grams=7))
            await t.publish(Weighed(grams=0))
            await t.idle()
            assert t.handled(Weighed) == [Weighed(grams=7)]
            (letter,) = t.dead_letters(Weighed)
            assert letter.message.headers["content-type"] == "application/msgpack"
            assert letter.message.body is not None
            assert msgpack.unpackb(letter.message.body) == {"grams": 0}

    asyncio.run(main())
    assert sorted(seen) == [0, 7, 7]
