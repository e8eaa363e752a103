"""Plain clients of the real brokers, which know nothing of eventkit: they publish headers that are no text."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import urlsplit

from eventkit import names

Put = Callable[[str, str, bytes, Mapping[str, object]], None]
"""To the broker at this address, to this channel: a body with these headers."""

_BYTES: Mapping[str, object] = {"x-utf-8": "grün".encode(), "x-latin-1": b"gr\xfcn", "x-bytes": b"\x00\xff"}
_JSON: Mapping[str, object] = {
    "x-number": 7,
    "x-ratio": -1.5,
    "x-true": True,
    "x-false": False,
    "x-null": None,
    "x-list": [1, "a"],
    "x-table": {"a": 1},
}


def channel(broker: str, namespace: str, topic: str) -> str:
    """What a topic of ours is called there."""
    name: str = getattr(names, broker)(namespace).channel("topic", topic)
    return name


def _redis(url: str, name: str, body: bytes, headers: Mapping[str, object]) -> None:
    import redis

    with redis.Redis.from_url(url) as client:
        client.xadd(name, {"__data__": json.dumps({"data": body.decode(), "headers": headers})})


def _nats(url: str, name: str, body: bytes, headers: Mapping[str, object]) -> None:
    parts = urlsplit(url)
    assert parts.hostname is not None
    lines = [
        f"{key}: ".encode() + (value if isinstance(value, bytes) else str(value).encode())
        for key, value in headers.items()
    ]
    head = b"\r\n".join([b"NATS/1.0", *lines, b"", b""])
    said = {"verbose": False, "headers": True, "user": parts.username, "pass": parts.password}
    with (
        socket.create_connection((parts.hostname, parts.port or 4222), timeout=10) as wire,
        wire.makefile("rb") as reading,
    ):
        reading.readline()
        wire.sendall(b"CONNECT %b\r\n" % json.dumps({k: v for k, v in said.items() if v is not None}).encode())
        total = len(head) + len(body)
        wire.sendall(b"HPUB %b %d %d\r\n%b%b\r\nPING\r\n" % (name.encode(), len(head), total, head, body))
        answer = reading.readline()
        assert answer.strip() == b"PONG", answer


def _rabbit(url: str, name: str, body: bytes, headers: Mapping[str, object]) -> None:
    import aiormq
    from aiormq.abc import Basic  # type: ignore[attr-defined]

    async def publish() -> None:
        connection = await aiormq.connect(url)
        made = await connection.channel()
        await made.basic_publish(
            body, exchange=name, properties=Basic.Properties(headers=dict(headers), delivery_mode=2)
        )  # type: ignore[arg-type]
        await connection.close()

    asyncio.run(publish())


def _kafka(url: str, name: str, body: bytes, headers: Mapping[str, object]) -> None:
    from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]

    async def publish() -> None:
        async with AIOKafkaProducer(bootstrap_servers=urlsplit(url).netloc) as producer:
            written = [(key, value.encode() if isinstance(value, str) else value) for key, value in headers.items()]
            await producer.send_and_wait(name, body, headers=written)

    asyncio.run(publish())


PUT: Mapping[str, Put] = {"redis": _redis, "nats": _nats, "rabbit": _rabbit, "kafka": _kafka}

NO_TEXT: Mapping[str, Mapping[str, object]] = {
    "redis": _JSON,
    "nats": _BYTES,
    "rabbit": {
        **_JSON,
        "x-time": datetime(2025, 1, 1, tzinfo=UTC),
        "x-decimal": Decimal("1.5"),
        "x-bytes": bytearray(b"\xff\xfe"),
    },
    "kafka": {**_BYTES, "x-null": None},
}
