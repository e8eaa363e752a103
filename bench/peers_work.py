"""What every task queue's worker does: validate the same order, and say how fast so many were done."""

from __future__ import annotations

import os
import time

import redis

from bench.messages import Order

URL = os.environ.get("BENCH_REDIS", "redis://127.0.0.1")
COUNT = int(os.environ.get("BENCH_COUNT", "1"))
RATE = "bench:rate"

_seen = 0
_began = 0.0


def work(order: dict[str, object]) -> None:
    global _seen, _began
    Order.model_validate(order)
    if not _seen:
        _began = time.perf_counter()
    _seen += 1
    if _seen == COUNT:
        with redis.from_url(URL) as client:
            client.set(RATE, (COUNT - 1) / (time.perf_counter() - _began))
