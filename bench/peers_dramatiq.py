"""Dramatiq as its documentation sets it up."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers_work import URL, work

dramatiq.set_broker(RedisBroker(url=URL))


@dramatiq.actor
def place(order: dict[str, Any]) -> None:
    work(order)


async def send(order: dict[str, Any]) -> None:
    place.send(order)


sending = nullcontext
