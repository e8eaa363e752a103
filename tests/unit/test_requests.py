"""Requests: how long they wait, what they say when they end, and how replies are written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import Annotated, Any, TypeVar

import pytest
from pydantic import BaseModel, Field

import eventkit
from eventkit import Bus, Command, DeclarationError, RequestTimeout, Service, UndecodableMessage
from eventkit import headers as h
from eventkit.adapter import Connection, Group, Message, Receive
from eventkit.memory import MemoryAdapter, MemoryConsumer, Store

T = TypeVar("T")
Positive = Annotated[int, Field(gt=0)]
SOON = timedelta(milliseconds=50)


class Weight(BaseModel):
    grams: int


class Weigh(Command[Weight], service="scales"):
    order: str


class Count(Command[Annotated[list[Positive], Field(max_length=3)]], service="scales"):
    upto: int


class Slow(MemoryAdapter):
    """Hangs where it is told to."""

    hangs = ""

    async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> MemoryConsumer:
        await self._hang("consume" if group.sources[0].kind == "reply" else "")
        return await super().consume(group, receive, in_flight=in_flight)

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
        await self._hang("publish")
        return await super().publish(messages)

    async def _hang(self, where: str) -> None:
        if where and where == self.hangs:
            await asyncio.Event().wait()


class Upside:
    """A serializer that is plainly not JSON: its JSON, backwards."""

    content_type = "application/x-upside-down"

    def encode(self, message: BaseModel, /) -> bytes:
        return message.model_dump_json().encode()[::-1]

    def decode(self, body: bytes, as_: type[Any], /) -> Any:
        return as_.model_validate_json(body[::-1])

    def data(self, body: bytes, /) -> object:
        raise NotImplementedError


def made(cls: type[T], store: Store | None = None) -> T:
    kind: Any = cls
    adapter: T = kind(Connection(url=None, namespace="", client="test"), store=store or Store())
    return adapter


def run(story: Awaitable[T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(10):
            return await story

    return asyncio.run(limited())


def scales() -> Service:
    service = Service("scales")

    @service.handler
    async def weigh(command: Weigh) -> Weight:
        return Weight(grams=len(command.order))

    @service.handler
    async def count(command: Count) -> list[int]:
        return list(range(1, command.upto + 1))

    return service


@pytest.mark.parametrize(("hangs", "sent"), [("consume", False), ("publish", True)])
def test_the_time_limit_counts_from_the_call(hangs: str, sent: bool) -> None:
    async def main() -> None:
        store = Store()
        async with Bus(made(MemoryAdapter, store), source="s") as serving, serving.run(scales()):
            adapter = made(Slow, store)
            async with Bus(adapter, source="t") as bus:
                adapter.hangs = hangs
                began = time.monotonic()
                with pytest.raises(RequestTimeout, match=r"no reply to Weigh within 0\.05 s") as raised:
                    await bus.request(Weigh(order="7"), timeout=SOON)
                assert time.monotonic() - began < 2.0
                assert raised.value.sent is sent
                assert ("it was not sent" in str(raised.value)) is not sent
                adapter.hangs = ""
                if sent:  # else the address is still being opened
                    assert await bus.request(Weigh(order="77")) == Weight(grams=2)

    run(main())


def test_one_that_gives_up_leaves_the_reply_address_to_the_others() -> None:
    class Late(MemoryAdapter):
        opened = 0

        async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> MemoryConsumer:
            if group.sources[0].kind == "reply":
                await asyncio.sleep(0.1)
                Late.opened += 1
            return await super().consume(group, receive, in_flight=in_flight)

    async def main() -> None:
        store = Store()
        serving, bus = Bus(made(MemoryAdapter, store), source="s"), Bus(made(Late, store), source="t")
        async with serving, serving.run(scales()), bus:
            hasty = asyncio.ensure_future(bus.request(Weigh(order="7"), timeout=SOON))
            patient = asyncio.ensure_future(bus.request(Weigh(order="77")))
            with pytest.raises(RequestTimeout):
                await hasty
            assert await patient == Weight(grams=2)
            assert await bus.request(Weigh(order="777")) == Weight(grams=3)
        assert Late.opened == 1

    run(main())


def test_health_knows_that_replies_are_not_read() -> None:
    async def main() -> None:
        store = Store()
        async with Bus(made(MemoryAdapter, store), source="s") as serving, serving.run(scales()):
            adapter = made(MemoryAdapter, store)
            async with Bus(adapter, source="t") as bus, bus.run(other()) as running:
                assert bus.health().ok
                assert await bus.request(Weigh(order="7")) == Weight(grams=1)
                assert bus.health().ok
                (consumer,) = [found for found in adapter._consumers if found is not adapter._consumers[0]]
                consumer.error = OSError("cut off")
                for health in (bus.health(), running.health()):
                    assert not health.ok
                    ((name, said),) = health.errors.items()
                    assert name.startswith("t.")
                    assert said == "OSError: cut off"
                consumer.error = None
                assert bus.health().ok
                assert running.health().ok

    run(main())


def other() -> Service:
    service = Service("other")

    @service.handler
    async def count(command: Stop) -> None: ...

    return service


class Stop(Command, service="other"):
    pass


def test_a_reply_may_be_annotated() -> None:
    async def main() -> None:
        async with eventkit.testing.run(scales()) as t:
            assert await t.request(Count(upto=3)) == [1, 2, 3]

    run(main())
    with pytest.raises(DeclarationError, match="promises a reply of"):

        @Service("scales").handler
        async def count(command: Count) -> list[str]: ...


def test_a_reply_that_cannot_be_written_is_refused_when_it_is_declared() -> None:
    class Odd:
        pass

    with pytest.raises(DeclarationError, match="Ask: its reply cannot be written as JSON"):

        class Ask(Command[Odd], service="scales"):
            pass


def test_replies_are_written_by_the_serializer_and_say_so() -> None:
    async def main() -> None:
        store = Store()
        seen: list[Message] = []

        class Watching(MemoryAdapter):
            async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
                seen.extend(message for message in messages if message.address.kind == "reply")
                return await super().publish(messages)

        upside = Upside()
        async with Bus(made(Watching, store), source="s", serializer=upside) as serving, serving.run(scales()):
            async with Bus(made(MemoryAdapter, store), source="t", serializer=upside) as bus:
                assert await bus.request(Weigh(order="7")) == Weight(grams=1)
                assert await bus.request(Count(upto=2)) == [1, 2]  # no model, so that it cannot write it
            async with Bus(made(MemoryAdapter, store), source="t") as bus:
                with pytest.raises(UndecodableMessage, match="is application/x-upside-down, and this bus reads JSON"):
                    await bus.request(Weigh(order="7"))
        said = [(message.headers[h.CONTENT_TYPE], message.body) for message in seen]
        assert said == [
            (upside.content_type, b'}1:"smarg"{'),
            ("application/json", b"[1,2]"),
            (upside.content_type, b'}1:"smarg"{'),
        ]

    run(main())


def test_a_reply_that_would_change_on_the_way_fails_the_request() -> None:
    class Ratio(Command[float], service="scales"):
        pass

    service = Service("scales")

    @service.handler
    async def ratio(command: Ratio) -> float:
        return float("nan")

    async def main() -> None:
        async with eventkit.testing.run(service) as t:
            with pytest.raises(eventkit.CommandFailed, match="does not read back equal"):
                await t.request(Ratio())

    run(main())
