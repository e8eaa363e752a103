"""The measurements, each the same for every side."""

from __future__ import annotations

import asyncio
import gc
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from bench.ours import Eventkit
from bench.sides import Side, Stopwatch


async def consume(side: Side, count: int) -> float:
    """Messages a second, from a backlog, every one acknowledged."""
    await _fill(side, count)
    watch = Stopwatch(count)
    await side.consume(count, watch)
    return watch.rate


async def publish_many(side: Side, count: int) -> float:
    messages = side.make(count)
    began = time.perf_counter()
    await side.publish_many(messages)
    rate = count / (time.perf_counter() - began)
    await side.consume(count, lambda _: None)
    return rate


async def publish_one(side: Side, count: int) -> float:
    """One after another, each confirmed before the next."""
    messages = side.make(count)
    began = time.perf_counter()
    for message in messages:
        await side.publish_one(message)
    rate = count / (time.perf_counter() - began)
    await side.consume(count, lambda _: None)
    return rate


async def publish_concurrent(side: Side, count: int, at_once: int = 100) -> float:
    """A hundred at once, as a web service does."""
    messages = side.make(count)
    began = time.perf_counter()
    for first in range(0, count, at_once):
        await asyncio.gather(*(side.publish_one(message) for message in messages[first : first + at_once]))
    rate = count / (time.perf_counter() - began)
    await side.consume(count, lambda _: None)
    return rate


async def end_to_end(side: Side, count: int) -> dict[str, float]:
    """Milliseconds from publish to handler, at 200 messages a second."""
    delays: list[float] = []

    def seen(message: Any) -> None:
        if message.sent:
            delays.append((time.perf_counter() - message.sent) * 1_000)

    reading = asyncio.create_task(side.consume(count + 1, seen))
    await side.publish_one(side.make(1)[0])  # the group is awake when the first one that counts is sent
    await asyncio.sleep(3)
    for message in side.make(count):
        await side.publish_one(message.model_copy(update={"sent": time.perf_counter()}))
        await asyncio.sleep(0.005)
    await reading
    return {"p50": statistics.median(delays), "p99": statistics.quantiles(delays, n=100)[98]}


async def request_reply(side: Eventkit, count: int) -> dict[str, float]:
    """Milliseconds a request takes, one after another."""
    times = []
    async with side.bus.run(side.service):
        await side.request(0)
        for number in range(count):
            began = time.perf_counter()
            await side.request(number)
            times.append((time.perf_counter() - began) * 1_000)
    return {"p50": statistics.median(times), "p99": statistics.quantiles(times, n=100)[98]}


def memory_of_backlog(broker: str, url: str, waiting: int) -> float:
    """Megabytes that a consumer process has at its peak while it reads 1,000 messages of so many waiting."""
    command = [sys.executable, "-m", "bench.backlog", broker, url, str(waiting)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def _fill(side: Side, count: int) -> None:
    await side.publish_many(side.make(count))
    gc.collect()


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
