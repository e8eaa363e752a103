"""`python -m bench redis nats`: eventkit, FastStream and the raw client side by side, in one run on one broker.

Brokers are provided as for the tests. Writes build/bench.json and docs/bench.md.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench import measure
from bench.ours import Eventkit
from bench.report import write_table
from bench.sides import Side

_RAW = {"redis": "RawRedis", "nats": "RawNats", "rabbit": "RawRabbit", "kafka": "RawKafka"}
_COUNTS = {"redis": 20_000, "nats": 20_000, "rabbit": 10_000, "kafka": 40_000}
_ROUNDS = 3
_MEMORY_COUNT = 50_000
_JSON = Path("build/bench.json")


def main(brokers: list[str]) -> None:
    results: dict[str, Any] = json.loads(_JSON.read_text()) if _JSON.exists() else {}
    for broker in brokers or ["memory", *_RAW]:
        results[broker] = _one(broker)
        _JSON.parent.mkdir(exist_ok=True)
        _JSON.write_text(json.dumps(results, indent=2) + "\n")
    write_table(results)


def _one(broker: str) -> dict[str, Any]:
    if broker == "memory":
        rates = [asyncio.run(_with(lambda: Eventkit("memory"), "", _consume_of(_MEMORY_COUNT))) for _ in range(_ROUNDS)]
        return {"consume": {"eventkit": round(measure.median(rates))}}
    from eventkit.testing.brokers import provide

    given = provide(broker)
    try:
        print(f"{broker} {given.version} ({given.how})")
        return {"version": given.version, **_measure(broker, given.url)}
    finally:
        given.stop()


def _measure(broker: str, url: str) -> dict[str, Any]:
    raw = getattr(importlib.import_module(f"bench.raw_{broker}"), _RAW[broker])
    thin = importlib.import_module("bench.thin").THIN[broker]
    many = _COUNTS[broker]
    makers: dict[str, Callable[[], Side]] = {"eventkit": lambda: Eventkit(broker), "raw": raw, "faststream": thin}
    few = {"eventkit": many, "raw": many, "faststream": 400 if broker == "kafka" else 2_000}
    plan: dict[str, tuple[Callable[[Side, int], Awaitable[Any]], dict[str, int]]] = {
        "consume": (measure.consume, few),
        "publish_many": (measure.publish_many, few),
        "publish_one": (measure.publish_one, dict.fromkeys(few, 500)),
        "publish_100_concurrent": (measure.publish_concurrent, {**dict.fromkeys(few, 5_000), "faststream": 500}),
        "end_to_end_ms": (measure.end_to_end, {"eventkit": 300, "raw": 300}),
    }
    results: dict[str, Any] = {}
    for name, (function, counts) in plan.items():
        rounds: dict[str, list[Any]] = {side: [] for side in counts}
        for _ in range(_ROUNDS):  # in turn, so that a drift of the machine meets all sides
            for side, count in counts.items():
                rounds[side].append(asyncio.run(_with(makers[side], url, lambda s, f=function, n=count: f(s, n))))
        results[name] = {side: _middle(values) for side, values in rounds.items()}
        print(f"  {name}: {results[name]}", flush=True)
    results["request_reply_ms"] = {
        "eventkit": _middle([asyncio.run(_with(makers["eventkit"], url, lambda s: measure.request_reply(s, 300)))])
    }
    results["memory_mb"] = {
        f"{waiting} waiting": measure.memory_of_backlog(broker, url, waiting) for waiting in (1_000, 200_000)
    }
    print(f"  request_reply_ms: {results['request_reply_ms']}, memory_mb: {results['memory_mb']}", flush=True)
    return results


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
