"""The measurements, each the same for every side."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.ours import bus_of
from bench.shapes import Countdown, events_of, messages_of, service_of
from bench.sides import Requesting, Side, Stopwatch
from eventkit import Provision


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


async def publish_concurrent(side: Side, count: int, tasks: int = 100) -> float:
    """A hundred tasks, each publishing one after another, as the handlers of a web service do."""
    left = iter(side.make(count))

    async def publish() -> None:
        for message in left:
            await side.publish_one(message)

    began = time.perf_counter()
    await asyncio.gather(*(publish() for _ in range(tasks)))
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
    await asyncio.sleep(1)
    for message in side.make(count):
        await side.publish_one(message.model_copy(update={"sent": time.perf_counter()}))
        await asyncio.sleep(0.005)
    await reading
    return {"p50": statistics.median(delays), "p99": statistics.quantiles(delays, n=100)[98]}


async def requests(side: Requesting, count: int) -> dict[str, float]:
    """Requests a second from a hundred tasks, and the milliseconds that one takes, one after another."""
    times = []
    async with side.serving():
        await side.request(0)
        for number in range(300):
            began = time.perf_counter()
            await side.request(number)
            times.append((time.perf_counter() - began) * 1_000)
        left = iter(range(count))

        async def ask() -> None:
            for number in left:
                await side.request(number)

        began = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(100)))
        rate = count / (time.perf_counter() - began)
    return {"rate": rate, "p50": statistics.median(times), "p99": statistics.quantiles(times, n=100)[98]}


async def start_up(broker: str, url: str) -> dict[str, float]:
    """Seconds to start a service with 200 handlers on 20 topics beyond the connect, at first and once more."""
    classes = events_of(200, 20)
    seconds = {}
    async with bus_of(broker, url, f"start{time.time_ns():x}") as bus:
        for when in ("first", "again"):
            began = time.perf_counter()
            async with bus.run(service_of(classes, lambda: None)):
                seconds[when] = time.perf_counter() - began
    return seconds


async def spread(broker: str, url: str, topics: int, count: int) -> float:
    """Microseconds of CPU a message, from so many topics in turn."""
    classes = events_of(topics, topics)
    ends = Countdown(count)
    service = service_of(classes, ends)
    async with bus_of(broker, url, f"spread{time.time_ns():x}") as bus:
        groups = [group for group, _ in service.groups().values()]
        await bus.adapter.provision(groups, Provision.CREATE)
        await bus.publish_many(messages_of(classes, count, 1_000))
        gc.collect()
        async with bus.run(service):
            await ends.done.wait()
    return ends.microseconds


def of_backlog(broker: str, url: str, waiting: int) -> dict[str, float]:
    """What a process costs that reads 1,000 messages of so many waiting slowly, and then the next 20,000 of them."""
    command = [sys.executable, "-m", "bench.backlog", broker, url, str(waiting)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def peak_megabytes() -> float:
    """Of this program alone: what `getrusage` says holds the peak of the process that started it, too."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


async def _fill(side: Side, count: int) -> None:
    await side.publish_many(side.make(count))
    gc.collect()


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
