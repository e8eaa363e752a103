"""Which message a record is about that was logged while a handler ran."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

import eventkit
from eventkit import Batch, Context, LogFields, Retry, Service
from eventkit.contract.checks import eventually, fresh_namespace
from eventkit.log_json import JsonFormatter
from eventkit.testing.brokers import Broker
from tests.wanted import wanted

mine = logging.getLogger("tests.shop.parcels")

FIELDS = ("message_id", "message_type", "message_key", "correlation_id", "attempt", "service", "group")


class Parcel(eventkit.Event, topic="log-parcels", key="name"):
    name: str
    pin: str = "4711-0815"


class Weighed(eventkit.Event, topic="log-weighed"):
    name: str


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", wanted(metafunc.config))


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What is logged, as `eventkit run --log-format json` writes it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(LogFields())
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


def records(stream: io.StringIO, said: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in lines if said in line["message"]]


def fields(record: dict[str, object]) -> dict[str, object]:
    return {name: record.get(name) for name in FIELDS}


def make_service() -> Service:
    service = Service("shipping", retry=Retry(attempts=2, first_delay=timedelta(0)))
    background: set[asyncio.Task[None]] = set()

    @service.handler
    async def weigh(event: Parcel) -> Weighed:
        mine.info("weighing")
        if event.name == "odd":
            mine.warning("too odd")
            raise ValueError("odd")

        async def later() -> None:
            mine.info("in a task")

        task = asyncio.create_task(later())
        background.add(task)
        await task
        return Weighed(name=event.name)

    @service.handler(group="audit")
    def audit(event: Parcel, context: Context) -> None:
        mine.info("auditing %s in %s", event.name, threading.current_thread().name)

    return service


def test_on_every_broker(backend: str, broker: Callable[[str], Broker], stream: io.StringIO) -> None:
    async def story() -> None:
        url = None if backend == "memory" else broker(backend).url
        service = make_service()
        async with eventkit.connect(backend, url, namespace=fresh_namespace()) as bus, bus.run(service) as running:
            await bus.publish(Parcel(name="one"), id="id-1", correlation_id="order-7")
            await bus.publish(Parcel(name="odd"), id="id-2", correlation_id="order-8")
            await eventually(lambda: running.counts["shipping"].dead, "the odd one is given up on")
            await eventually(lambda: running.counts["shipping.audit"].handled == 2, "both are audited")
            await eventually(lambda: running.counts["shipping"].handled, "the other is weighed")
            mine.info("outside")

        expected = {
            "message_id": "id-1",
            "message_type": "Parcel",
            "message_key": "one",
            "correlation_id": "order-7",
            "attempt": 1,
            "service": "shipping",
            "group": "shipping",
        }
        (weighing,) = [one for one in records(stream, "weighing") if one["message_id"] == "id-1"]
        assert fields(weighing) == expected
        assert weighing["logger"] == "tests.shop.parcels"
        (task,) = records(stream, "in a task")
        assert fields(task) == expected
        (audited,) = records(stream, "auditing one")
        assert "shipping handler" in str(audited["message"]), "it ran in a thread"
        assert fields(audited) == {**expected, "group": "shipping.audit"}
        odd = {**expected, "message_id": "id-2", "message_key": "odd", "correlation_id": "order-8"}
        assert [fields(one) for one in records(stream, "too odd")] == [odd, {**odd, "attempt": 2}]
        (outside,) = records(stream, "outside")
        assert set(fields(outside).values()) == {None}
        assert "4711-0815" not in stream.getvalue(), "payloads are not logged at INFO"

    asyncio.run(story())


def test_a_batch_says_how_many(stream: io.StringIO) -> None:
    async def story() -> None:
        service = Service("shipping")

        @service.handler(batch=Batch(size=3, wait=timedelta(seconds=5)))
        async def weigh(events: list[Parcel]) -> None:
            mine.info("weighing %d", len(events))

        async with eventkit.connect("memory", namespace=fresh_namespace()) as bus, bus.run(service) as running:
            await bus.publish_many([Parcel(name=str(n)) for n in range(3)])
            await eventually(lambda: running.counts["shipping"].handled == 3, "they are handled")
        (weighing,) = records(stream, "weighing 3")
        assert (weighing["service"], weighing["group"], weighing["batch"]) == ("shipping", "shipping", 3)

    asyncio.run(story())


def test_without_info_a_plain_handler_has_them_too(stream: io.StringIO) -> None:
    async def story() -> None:
        service = Service("shipping")

        @service.handler
        async def weigh(event: Parcel) -> None:
            mine.warning("heavy")

        logging.getLogger().setLevel(logging.WARNING)
        async with eventkit.connect("memory", namespace=fresh_namespace()) as bus, bus.run(service) as running:
            await bus.publish(Parcel(name="one"), id="id-1")
            await bus.publish(Parcel(name="two"), id="id-2")
            await eventually(lambda: running.counts["shipping"].handled == 2, "they are handled")
        assert {one["message_id"] for one in records(stream, "heavy")} == {"id-1", "id-2"}

    asyncio.run(story())


def test_payloads_at_debug_only_and_redacted(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setenv("EVENTKIT_REDACT", "pin")
        logging.getLogger().setLevel(logging.DEBUG)
        service = Service("shipping", retry=Retry(attempts=1))

        @service.handler
        async def weigh(event: Parcel) -> None:
            raise ValueError(f"no {event.pin} for {event.name}")

        async with eventkit.connect("memory", namespace=fresh_namespace()) as bus, bus.run(service) as running:
            await bus.publish(Parcel(name="one"))
            await eventually(lambda: running.counts["shipping"].dead, "it is given up on")
        (payload,) = records(stream, '{"name": "one", "pin": "***"}')
        assert (payload["level"], payload["message_key"]) == ("debug", "one")
        (dead,) = records(stream, "is a dead letter")
        assert "no *** for one" in str(dead["message"])
        assert "4711-0815" not in stream.getvalue()

    asyncio.run(story())


def test_a_key_whose_field_is_hidden_is_hidden(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setenv("EVENTKIT_REDACT", "name")
        service = Service("shipping")

        @service.handler
        async def weigh(event: Parcel) -> None:
            mine.info("weighing")

        async with eventkit.connect("memory", namespace=fresh_namespace()) as bus, bus.run(service) as running:
            await bus.publish(Parcel(name="Ada Lovelace"))
            await eventually(lambda: running.counts["shipping"].handled, "it is handled")
        (weighing,) = records(stream, "weighing")
        assert weighing["message_key"] == "***"
        assert "Ada" not in stream.getvalue()

    asyncio.run(story())


def test_a_field_that_a_record_has_is_kept_and_other_records_are_left_alone() -> None:
    record = logging.makeLogRecord({"msg": "said", "group": "theirs"})
    assert LogFields().filter(record)
    assert record.__dict__["group"] == "theirs"
    assert not hasattr(record, "message_id")
    assert LogFields()(None, "info", {"event": "said"}) == {"event": "said"}
