"""Brokers that take nothing more: how each is brought there, and back."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eventkit import names
from eventkit.testing.brokers import Broker
from tests.breakable import Breakable


@dataclass(frozen=True)
class Refusing:
    """One broker's way of refusing."""

    says: str
    """What each refused publish names."""
    padding: int
    """Of the messages, in bytes."""
    begin: Callable[[Breakable, str], Awaitable[None]]
    end: Callable[[Breakable, str], Awaitable[None]]
    settings: Mapping[str, str] = field(default_factory=dict)
    refuses_all: bool = True
    """Else only large messages, and small ones go on."""


async def _redis(broken: Breakable, limit: str) -> None:
    import redis.asyncio

    async with redis.asyncio.Redis.from_url(broken.direct) as client:
        await client.config_set("maxmemory-policy", "noeviction")
        await client.config_set("maxmemory", limit)


async def rabbitmqctl(broker: Broker, *arguments: str) -> str:
    """`rabbitmqctl`, of that very node; what it says."""
    program: Any = broker._running._programs[-1]  # type: ignore[union-attr]
    tool = Path(program.command[0]).with_name("rabbitmqctl")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
    wanted = ("HOME", "LANG", "ERL_EPMD_ADDRESS", "ERL_EPMD_PORT", "RABBITMQ_NODENAME", "RABBITMQ_CONF_ENV_FILE")
    said = await asyncio.to_thread(
        subprocess.run,
        [str(tool), *arguments],
        env={**environment, **{name: program.environment[name] for name in wanted}},
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return said.stdout.strip()


async def _rabbit(broken: Breakable, watermark: str) -> None:
    await rabbitmqctl(broken.broker, "set_vm_memory_high_watermark", watermark)


async def _nats(broken: Breakable, namespace: str, limit: int) -> None:
    import nats

    client = await nats.connect(broken.direct)
    stream = await client.jetstream().stream_info(names.nats(namespace).channel("topic", "beats"))
    config = stream.config
    config.max_msgs, config.discard = limit, "new" if limit > 0 else "old"  # type: ignore[assignment]
    await client.jetstream().update_stream(config)
    await client.close()


async def _kafka(broken: Breakable, namespace: str, limit: int) -> None:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    topic = names.kafka(namespace).channel("topic", "beats")
    admin = AIOKafkaAdminClient(bootstrap_servers=urlsplit(broken.direct).netloc)
    await admin.start()
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(limit)})])
    await admin.close()


REFUSING = {
    "redis": Refusing("maxmemory", 10_000, lambda b, _: _redis(b, "1mb"), lambda b, _: _redis(b, "0")),
    "nats": Refusing("maximum messages exceeded", 100, lambda b, n: _nats(b, n, 1), lambda b, n: _nats(b, n, -1)),
    "rabbit": Refusing("low on memory", 100, lambda b, _: _rabbit(b, "0.000001"), lambda b, _: _rabbit(b, "0.6")),
    "kafka": Refusing(
        "the broker takes",
        5_000,
        lambda b, n: _kafka(b, n, 2_000),
        lambda b, n: _kafka(b, n, 1_000_000),
        {"metadata_age": "PT2S"},
        refuses_all=False,
    ),
}
