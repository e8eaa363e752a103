"""A program that knows nothing of eventkit publishes with its broker's own client, as docs/messages.md says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

import eventkit
from eventkit import Context, Event, Service
from eventkit.contract.checks import eventually, fresh_namespace
from eventkit.testing.brokers import Broker
from tests.interop.plain import physical
from tests.wanted import wanted

Send = Callable[[bytes, Mapping[str, str]], Awaitable[object]]


class Sold(Event, topic="sales", key="item"):
    item: str


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "real" in metafunc.fixturenames:
        metafunc.parametrize("real", [name for name in wanted(metafunc.config) if name != "memory"])


async def _sender(real: str, url: str, channel: str, stack: AsyncExitStack) -> Send:
    if real == "redis":
        import redis.asyncio

        client: Any = await stack.enter_async_context(redis.asyncio.Redis.from_url(url))
        return lambda body, _: client.xadd(channel, {"data": body})
    if real == "nats":
        import nats

        connection: Any = await nats.connect(url)
        stack.push_async_callback(connection.close)
        return lambda body, headers: connection.jetstream().publish(f"{channel}.Sold", body, headers=dict(headers))
    if real == "rabbit":
        import aio_pika

        rabbit: Any = await aio_pika.connect(url)
        stack.push_async_callback(rabbit.close)
        exchange = await (await rabbit.channel()).get_exchange(channel, ensure=False)

        def send(body: bytes, headers: Mapping[str, str]) -> Awaitable[object]:
            said = {name: value for name, value in headers.items() if name != "content-type"}
            message = aio_pika.Message(
                body, headers=dict(said), content_type=headers.get("content-type"), delivery_mode=2
            )
            return exchange.publish(message, routing_key="anything")

        return send
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=url.removeprefix("kafka://"))
    await producer.start()
    stack.push_async_callback(producer.stop)

    def put(body: bytes, headers: Mapping[str, str]) -> Awaitable[object]:
        said = [(name.replace("ce-", "ce_"), value.encode()) for name, value in headers.items()]
        return producer.send_and_wait(channel, body, key=b"lamp", headers=said)

    return put


def test_a_plain_client_publishes(real: str, broker: Callable[[str], Broker]) -> None:
    async def story() -> None:
        url, namespace = broker(real).url, fresh_namespace()
        service = Service("shop")
        seen: list[tuple[str, str, str, str | None]] = []

        @service.handler
        async def sold(event: Sold, context: Context) -> None:
            seen.append((event.item, context.id, context.source, context.key))

        async with AsyncExitStack() as stack:
            bus = await stack.enter_async_context(eventkit.connect(real, url, namespace=namespace))
            await stack.enter_async_context(bus.run(service))
            send = await _sender(real, url, physical(real, namespace, "sales"), stack)
            structured = {
                "specversion": "1.0",
                "id": "1",
                "source": "legacy",
                "type": "Sold",
                "partitionkey": "lamp",
                "datacontenttype": "application/json",
                "data": {"item": "lamp"},
            }
            await send(json.dumps(structured).encode(), {})
            await eventually(lambda: ("lamp", "1", "legacy", "lamp") in seen, f"the structured one is handled: {seen}")
            if real != "redis":
                headers = {
                    "ce-specversion": "1.0",
                    "ce-id": "2",
                    "ce-source": "legacy",
                    "ce-type": "Sold",
                    "ce-partitionkey": "lamp",
                    "content-type": "application/json",
                }
                await send(b'{"item": "lamp"}', headers)
                await eventually(lambda: ("lamp", "2", "legacy", "lamp") in seen, "that with headers is handled")

    asyncio.run(story())
