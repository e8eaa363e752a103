"""Taskiq on Redis Streams, the broker of taskiq-redis that acknowledges."""

from __future__ import annotations

from typing import Any

from taskiq_redis import RedisStreamBroker

from bench.peers_work import URL, work

broker = RedisStreamBroker(url=URL)


@broker.task
async def place(order: dict[str, Any]) -> None:
    work(order)


async def send(order: dict[str, Any]) -> None:
    await place.kiq(order)
