"""Handlers of an existing channel, whose messages say no type."""

from __future__ import annotations

import asyncio
import uuid

import pytest

import eventkit
from eventkit import Context, DeclarationError, Event, Service, Topic
from eventkit.adapter import Address, Message
from eventkit.contract.checks import eventually


class Placed(Event, topic="foreign.placed"):
    order: str


class Closed(Event, topic="foreign.placed"):
    order: str


LEGACY = Topic("foreign.legacy", physical="legacy.placed", default=Placed)


def received(service: Service, seen: list[str], count: int, *messages: tuple[str, bytes]) -> list[str]:
    """What the service has seen of these foreign messages: their type and body."""

    async def main() -> None:
        address = Address("topic", LEGACY.name, LEGACY.physical)
        async with eventkit.connect("memory", namespace=uuid.uuid4().hex) as bus, bus.run(service):
            await bus.deliver([Message(address, name, None, {}, body) for name, body in messages])
            await eventually(lambda: len(seen) >= count, "all are seen", 5)
            await asyncio.sleep(0.05)

    asyncio.run(main())
    return seen


def test_what_says_no_type_is_taken_for_the_default() -> None:
    service, seen = Service("shipping"), list[str]()

    @service.handler(topic=LEGACY)
    async def book(event: Placed, context: Context) -> None:
        seen.append(f"legacy {event.order} {context.type or '-'}")

    @service.handler
    async def book_ours(event: Placed) -> None:
        seen.append(f"ours {event.order}")

    messages = [("", b'{"order": "1"}'), ("Placed", b'{"order": "2"}'), ("Other", b'{"order": "3"}')]
    assert sorted(received(service, seen, 2, *messages)) == ["legacy 1 -", "legacy 2 Placed"]


def test_a_handler_of_all_events_gets_the_default_too() -> None:
    service, seen = Service("audit"), list[str]()

    @service.handler(topic=LEGACY)
    async def note(event: Event) -> None:
        seen.append(type(event).__name__)

    assert received(service, seen, 2, ("", b'{"order": "1"}'), ("Other", b"{}")) == ["Placed", "Undeclared"]


def test_the_topic_of_a_handler_must_be_of_its_class() -> None:
    service = Service("shipping")
    with pytest.raises(DeclarationError, match=r"topic=Topic\(\.\.\., default=TheClass\)"):

        @service.handler(topic=LEGACY)
        async def close(event: Closed) -> None: ...

    with pytest.raises(DeclarationError, match="already has a handler here"):

        @service.handler(topic=LEGACY)
        async def one(event: Placed) -> None: ...

        @service.handler(topic=LEGACY)
        async def two(event: Placed) -> None: ...
