"""Others write messages, or set limits, that leave no room for what a failure adds: all become dead letters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from eventkit import Bus, Event, Retry, Service, Topic, names
from eventkit.contract import Backend
from eventkit.contract.border import Foreign
from eventkit.contract.checks import bus, fresh_namespace
from eventkit.contract.letters import listed


class Thing(Event, topic=Topic("room.things", default="Thing")):
    name: str


@dataclass
class Failing:
    """A service that fails each thing twice, with much to say."""

    bus: Bus
    namespace: str
    backend: Backend

    async def put(self, name: str, header: int) -> None:
        """As another client does, with a header of so many characters."""
        assert isinstance(self.backend, Foreign)
        body = json.dumps({"name": name}).encode()
        put, headers = self.backend.put, {"x-said": "x" * header}
        await asyncio.to_thread(put, self.namespace, "room.things", body, headers)


async def _fails(backend: Backend, check: Callable[[Failing], Awaitable[None]]) -> None:
    service = Service("worker", retry=Retry(attempts=2, first_delay=timedelta(milliseconds=100), jitter=0))

    @service.handler
    async def thing(event: Thing) -> None:
        raise LookupError("ließe sich nicht finden ✗ " * 400)

    namespace = fresh_namespace()
    async with asyncio.timeout(40), bus(backend, namespace) as b, b.run(service):
        await check(Failing(b, namespace, backend))


@pytest.mark.parametrize(("name", "longest"), [("redis", 65_000), ("nats", 65_490), ("rabbit", 131_000)])
def test_headers_that_fill_all_that_the_broker_takes(
    backend: Callable[[str], Backend], name: str, longest: int
) -> None:
    async def check(failing: Failing) -> None:
        await failing.put("full", longest)
        await failing.put("nearly full", longest - 2_000)
        letters = await listed(failing.bus, "worker", 2, within=20.0)
        assert all(letter.error_type == "LookupError" and letter.attempts == 2 for letter in letters)
        full, nearly = sorted(letters, key=lambda letter: letter.body or b"")
        if name != "redis":
            assert full.headers["x-said"].endswith("x [cut]"), "it was cut, and says so"
        assert nearly.headers == {"x-said": "x" * (longest - 2_000)}, "what fails is cut before what others said"

    asyncio.run(_fails(backend(name), check))


async def _nats_takes(url: str, namespace: str, most: int) -> None:
    import nats

    client = await nats.connect(url)
    js = client.jetstream()
    config = (await js.stream_info(names.nats(namespace).channel("dead", "worker"))).config
    config.max_msg_size = most
    await js.update_stream(config)
    await client.close()


async def _kafka_takes(url: str, namespace: str, most: int) -> None:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    topic = names.kafka(namespace).channel("dead", "worker")
    admin = AIOKafkaAdminClient(bootstrap_servers=urlsplit(url).netloc)
    await admin.start()
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(most)})])
    await admin.close()


_TAKES = {"nats": _nats_takes, "kafka": _kafka_takes}


@pytest.mark.parametrize("name", ["nats", "kafka"])
def test_dead_letters_that_may_not_be_larger_than_the_message(backend: Callable[[str], Backend], name: str) -> None:
    async def check(failing: Failing) -> None:
        url = backend(name).url  # type: ignore[attr-defined]
        await _TAKES[name](url, failing.namespace, 2_500)
        await failing.bus.publish(Thing(name="one"), headers={"x-said": "x" * 500})
        (letter,) = await listed(failing.bus, "worker", 1, within=20.0)
        assert letter.error_type == "LookupError"
        assert letter.error_message is not None
        assert letter.error_message.endswith("[cut]")
        assert letter.headers == {"x-said": "x" * 500}

    asyncio.run(_fails(backend(name), check))
