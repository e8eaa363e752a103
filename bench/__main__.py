"""`python -m bench [--quick] redis nats`: eventkit, FastStream and the raw client side by side, in turn on one broker.

Brokers are provided as for the tests. Writes build/bench.json and docs/bench.md.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from bench import core, measure
from bench.ours import Eventkit
from bench.report import write_table

_ABOUT = """Measures eventkit, FastStream and the raw clients side by side, in turn on one broker, which is provided as
for the tests. Writes build/bench.json and docs/bench.md."""
_RAW = {"redis": "RawRedis", "nats": "RawNats", "rabbit": "RawRabbit", "kafka": "RawKafka"}
_COUNTS = {"redis": 10_000, "nats": 10_000, "rabbit": 5_000, "kafka": 20_000}
_ROUNDS = 5
_CORE_COUNT = 30_000
_SPREAD = 30_000
_PEERS_COUNT = 2_000
_BACKLOGS = (1_000, 30_000, 1_000_000)
_QUICK = 2
"""So many of them with --quick."""
_MEMORY_COUNT = 50_000
_JSON = Path("build/bench.json")


_ALL = ("core", "memory", *_RAW, "peers")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=_ABOUT)
    what = ", ".join(_ALL)
    parser.add_argument("brokers", nargs="*", metavar="WHAT", help=f"of {what} (peers: task queues); default: all")
    parser.add_argument("--quick", action="store_true", help="three rounds instead of five, and no million that waits")
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.brokers if name not in _ALL]:
        parser.error(f"{', '.join(unknown)}: it is one of {what}")
    if asked.quick:
        _be_quick()
    results: dict[str, Any] = json.loads(_JSON.read_text()) if _JSON.exists() else {}
    results["rounds"] = _ROUNDS
    for broker in asked.brokers or _ALL:
        for section, found in _one(broker):
            results.setdefault(broker, {})[section] = found
            print(f"  {section}: {found}", flush=True)
            _JSON.parent.mkdir(exist_ok=True)
            _JSON.write_text(json.dumps(results, indent=2) + "\n")
    write_table(results)


def _be_quick() -> None:
    """Three rounds, and no million messages waiting."""
    global _BACKLOGS, _ROUNDS
    _ROUNDS = 3
    _BACKLOGS = _BACKLOGS[:_QUICK]


def _one(broker: str) -> Iterator[tuple[str, Any]]:
    """What was measured, as soon as it is."""
    if broker == "core":
        yield from _core()
        return
    if broker == "memory":
        rates = [asyncio.run(_with(lambda: Eventkit("memory"), "", _consume_of(_MEMORY_COUNT))) for _ in range(_ROUNDS)]
        yield "consume", {"eventkit": round(measure.median(rates))}
        yield "start_up", _start_up("memory", "")
        return
    from eventkit.testing.brokers import provide

    if broker == "peers":
        from bench import peers

        given = provide("redis")
        try:
            yield from peers.rows(given.url, _PEERS_COUNT)
        finally:
            given.stop()
        return
    given = provide(broker)
    try:
        print(f"{broker} {given.version} ({given.how})", flush=True)
        yield "version", given.version
        yield from _measure(broker, given.url)
    finally:
        given.stop()


def _core() -> Iterator[tuple[str, float]]:
    """Microseconds of CPU."""
    shapes: dict[str, dict[str, int]] = {
        "handled, 1,000 keys": {},
        **{f"handled, {keys:,} keys": {"keys": keys} for keys in (1, 10_000)},
        **{f"handled, {handlers} handlers": {"handlers": handlers} for handlers in (200,)},
        **{f"handled, {topics} topics": {"topics": topics} for topics in (100,)},
    }
    times: dict[str, list[float]] = {name: [] for name in (*shapes, "of publish_many")}
    for _ in range(_ROUNDS):
        for name, shape in shapes.items():
            times[name].append(asyncio.run(core.handling(_CORE_COUNT, **shape)))
        times["of publish_many"].append(asyncio.run(core.publishing(_CORE_COUNT)))
    yield from ((name, round(measure.median(values), 2)) for name, values in times.items())


def _measure(broker: str, url: str) -> Iterator[tuple[str, Any]]:
    module = importlib.import_module(f"bench.raw_{broker}")
    raw, plain = getattr(module, _RAW[broker]), getattr(module, _RAW[broker].replace("Raw", "Plain"))
    thin = importlib.import_module("bench.thin").THIN[broker]
    many, slow = _COUNTS[broker], 200 if broker == "kafka" else 1_000
    makers: dict[str, Callable[[], Any]] = {
        "eventkit": lambda: Eventkit(broker),
        "raw": raw,
        "plain": plain,
        "faststream": thin,
    }
    few = {"eventkit": many, "raw": many, "plain": slow, "faststream": slow}
    single = {"eventkit": 500, "raw": 500}
    plan: dict[str, tuple[Callable[[Any, int], Awaitable[Any]], dict[str, int]]] = {
        "consume": (measure.consume, few),
        "publish_many": (measure.publish_many, few),
        "publish_one": (measure.publish_one, {**single, "faststream": 200}),
        "publish_100_concurrent": (
            measure.publish_concurrent,
            {"eventkit": many // 2, "raw": 5_000, "faststream": 500},
        ),
        "end_to_end_ms": (measure.end_to_end, dict.fromkeys(single, 200)),
        "requests": (measure.requests, dict.fromkeys(single if hasattr(raw, "serving") else ("eventkit",), 3_000)),
    }
    for name, (function, counts) in plan.items():
        rounds: dict[str, list[Any]] = {side: [] for side in counts}
        for _ in range(_ROUNDS):  # in turn, so that a drift of the machine meets all sides
            for side, count in counts.items():
                rounds[side].append(asyncio.run(_with(makers[side], url, lambda s, f=function, n=count: f(s, n))))
        yield name, {side: _middle(values) for side, values in rounds.items()}
    yield "start_up", _start_up(broker, url)
    yield "topics", _topics(broker, url)
    yield "backlog", _backlog(broker, url)


def _start_up(broker: str, url: str) -> dict[str, float]:
    return _middle([asyncio.run(measure.start_up(broker, url)) for _ in range(3)])  # type: ignore[no-any-return]


def _topics(broker: str, url: str) -> dict[str, float]:
    found: dict[str, list[float]] = {"1": [], "10": [], "100": []}
    for _ in range(3):
        for topics, values in found.items():
            values.append(asyncio.run(measure.spread(broker, url, int(topics), _SPREAD)))
    return {topics: round(measure.median(values), 1) for topics, values in found.items()}


def _backlog(broker: str, url: str) -> dict[str, dict[str, float]]:
    found = {waiting: measure.of_backlog(broker, url, waiting) for waiting in _BACKLOGS}
    if (
        len(_BACKLOGS) > _QUICK
    ):  # the million takes minutes, in which the machine may drift: the one before it once more
        few = _BACKLOGS[_QUICK - 1]
        again = measure.of_backlog(broker, url, few)
        found[few]["microseconds"] = (found[few]["microseconds"] + again["microseconds"]) / 2
    return {f"{waiting:,}": said for waiting, said in found.items()}


def _consume_of(count: int) -> Callable[[Any], Awaitable[float]]:
    return lambda side: measure.consume(side, count)


async def _with(make: Callable[[], Any], url: str, work: Callable[[Any], Awaitable[Any]]) -> Any:
    side = make()
    await side.open(url, f"bench{time.time_ns():x}")
    try:
        async with asyncio.timeout(180):
            return await work(side)
    finally:
        await side.close()


def _middle(values: list[Any]) -> Any:
    if isinstance(values[0], dict):
        return {name: round(measure.median([value[name] for value in values]), 3) for name in values[0]}
    return round(measure.median(values))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    main(sys.argv[1:])
