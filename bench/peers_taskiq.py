"""Taskiq on Redis Streams, the broker of taskiq-redis that acknowledges."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from taskiq_redis import RedisStreamBroker

from bench.peers_work import URL, work

broker = RedisStreamBroker(url=URL)


@broker.task
async def place(order: dict[str, Any]) -> None:
    work(order)


async def send(order: dict[str, Any]) -> None:
    await place.kiq(order)


@asynccontextmanager
async def sending() -> AsyncIterator[None]:
    await broker.startup()  # makes the workers' group, which begins now: what is sent before that, no worker ever sees
    try:
        yield
    finally:
        await broker.shutdown()
