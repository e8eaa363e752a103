"""The results as tables in docs/bench.md, with what was missed."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PAGE = Path("docs/bench.md")
_NOTES = Path(__file__).with_name("notes.md")
_RATES = {
    "consume": "consume",
    "publish_many": "publish many",
    "publish_one": "publish one",
    "publish_100_concurrent": "publish, 100 tasks",
}

OF_RAW, OF_PIPELINED, LATENCY = 0.95, 0.8, 1.2
REQUESTS, MEMORY = 3_000, 100_000
CORE, FLAT, START = 8.0, 1.1, 1.0


def write_table(results: dict[str, Any]) -> None:
    missed = list(misses(results))
    lines = [
        "# Speed",
        "",
        (
            "The brokers beside the clients on one machine, all sides in turn, medians of "
            f"{results.get('rounds', 5)}: take the ratios, not the"
        ),
        "rates. Each message is about 200 bytes, validated into a nested pydantic model and acknowledged; eventkit",
        "has all guarantees on. *raw* is the broker's client written by hand as well as can be, with the same bytes on",
        "the wire: a continuous pull on NATS, the frames of a batch in one write and acknowledgements put together",
        "on RabbitMQ, commits beside the fetches on Kafka, a batch in one write on Redis. *plain* is the loop that its",
        "documentation shows. *FastStream* is its typed handler, set to acknowledge after success, without its log.",
        "`python -m bench` makes this page.",
        "",
        f"Python {platform.python_version()}, {platform.system()}. Messages a second:",
        "",
        "| broker | what | eventkit | raw | plain | FastStream | of raw | of plain |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *_rates(results),
        "",
        "| broker | requests a second, 100 tasks | raw | p50, ms | p99 | raw p50 | p99 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *_requests(results),
        "",
        *_table(
            "| broker | from publish to handler, p50, ms | p99 | raw p50 | p99 |",
            "| --- | ---: | ---: | ---: | ---: |",
            _ends(results),
        ),
        "",
        "## What it does not depend on",
        "",
        "Microseconds of CPU that a message costs, by the topics it comes from and the messages that wait; the most",
        "memory that a process takes that reads beside a backlog; seconds until a service with 200 handlers on 20",
        "topics runs, beyond the connect.",
        "",
        *_table(
            "| broker | 1 topic | 10 | 100 | 30,000 waiting | 1,000,000 | MB, 1,000 waiting | 1,000,000 | start, s |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            _shapes(results),
        ),
        "",
        "The core alone, between an adapter and a handler that cost nothing, in microseconds of CPU a message, with",
        "pydantic's validation:",
        "",
        "| what | µs |",
        "| --- | ---: |",
        *(f"| {name} | {cost:.1f} |" for name, cost in results.get("core", {}).items()),
        *_peers(results.get("peers", {})),
        "",
        "## What was missed",
        "",
        *(f"* {miss}" for miss in missed),
        *([] if missed else ["Nothing."]),
    ]
    if _NOTES.exists():
        lines += ["", _NOTES.read_text(encoding="utf-8").strip()]
    _PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def _table(head: str, line: str, rows: Iterator[str]) -> list[str]:
    found = list(rows)
    return [head, line, *found] if found else ["Not measured in this run."]


def _brokers(results: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((broker, found) for broker, found in results.items() if broker not in ("core", "peers", "rounds"))


def _rates(results: dict[str, Any]) -> Iterator[str]:
    for broker, found in _brokers(results):
        for name, said in _RATES.items():
            rates = found.get(name)
            if rates is None:
                continue
            each = [f"{rates[side]:,}" if side in rates else "" for side in ("eventkit", "raw", "plain", "faststream")]
            of = [f"{rates['eventkit'] / rates[side]:.2f}" if side in rates else "" for side in ("raw", "plain")]
            yield f"| {broker} | {said} | {' | '.join(each)} | {' | '.join(of)} |"


def _requests(results: dict[str, Any]) -> Iterator[str]:
    for broker, found in _brokers(results):
        if "requests" in found:
            ours, raw = found["requests"]["eventkit"], found["requests"].get("raw")
            beside = f"{raw['p50']:.2f} | {raw['p99']:.2f}" if raw else " | "
            yield (
                f"| {broker} | {ours['rate']:,.0f} | {format(raw['rate'], ',.0f') if raw else ''} "
                f"| {ours['p50']:.2f} | {ours['p99']:.2f} | {beside} |"
            )


def _ends(results: dict[str, Any]) -> Iterator[str]:
    for broker, found in _brokers(results):
        if "end_to_end_ms" in found:
            ours, raw = found["end_to_end_ms"]["eventkit"], found["end_to_end_ms"]["raw"]
            yield f"| {broker} | {ours['p50']:.2f} | {ours['p99']:.2f} | {raw['p50']:.2f} | {raw['p99']:.2f} |"


def _shapes(results: dict[str, Any]) -> Iterator[str]:
    for broker, found in _brokers(results):
        topics, backlog = found.get("topics", {}), found.get("backlog", {})
        if not topics and not backlog and "start_up" not in found:
            continue
        cells = [f"{topics[many]:.1f}" if many in topics else "" for many in ("1", "10", "100")]
        cells += [f"{backlog[many]['microseconds']:.1f}" if many in backlog else "" for many in ("30,000", "1,000,000")]
        cells += [f"{backlog[many]['megabytes']:.0f}" if many in backlog else "" for many in ("1,000", "1,000,000")]
        cells.append(f"{found['start_up']['first']:.2f}" if "start_up" in found else "")
        yield f"| {broker} | {' | '.join(cells)} |"


def _peers(peers: dict[str, Any]) -> list[str]:
    if not peers:
        return []
    lines = [
        "",
        "## Against task queues on Redis",
        "",
        "The same Redis, the same run, one worker process each, the same JSON. What a setting guarantees when a worker",
        "is killed is said beside it: they differ. Messages a second:",
        "",
        "| | setting | a worker is killed | consume | publish, one after another |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    return lines + [
        f"| {name} | {found['setting']} | {found['killed']} | {found['consume']:,.0f} | {found['publish']:,.0f} |"
        for name, found in peers.items()
    ]


def misses(results: dict[str, Any]) -> Iterator[str]:
    """The bars that this run did not reach."""
    yield from _missed_core(results)
    for broker, found in _brokers(results):
        for name in ("consume", "publish_many"):
            rates = found.get(name, {})
            if "raw" in rates and rates["eventkit"] < OF_RAW * rates["raw"]:
                yield f"{broker}, {_RATES[name]}: {rates['eventkit'] / rates['raw']:.2f} of raw, {OF_RAW} wanted"
        if "publish_100_concurrent" in found and "raw" in found["publish_many"]:
            ratio = found["publish_100_concurrent"]["eventkit"] / found["publish_many"]["raw"]
            if ratio < OF_PIPELINED:
                yield (
                    f"{broker}, publish from 100 tasks: {ratio:.2f} of the raw client's pipelined rate, "
                    f"{OF_PIPELINED} wanted"
                )
        asked = found.get("requests", {})
        if "raw" in asked:
            if asked["eventkit"]["rate"] < REQUESTS:
                yield f"{broker}, requests: {asked['eventkit']['rate']:,.0f} a second, {REQUESTS:,} wanted"
            if asked["eventkit"]["p50"] > LATENCY * asked["raw"]["p50"]:
                ratio = asked["eventkit"]["p50"] / asked["raw"]["p50"]
                yield f"{broker}, requests, p50: {ratio:.2f} of raw, {LATENCY} wanted"
        yield from _missed_flat(broker, found)


def _missed_core(results: dict[str, Any]) -> Iterator[str]:
    core = results.get("core", {})
    for name, cost in core.items():
        first = core["handled, 1,000 keys"]
        if cost > CORE:
            yield f"the core, {name}: {cost:.1f} µs a message, {CORE:g} wanted"
        if name.startswith("handled") and not 1 / FLAT <= cost / first <= FLAT:
            yield f"the core, {name}: {cost / first:.2f} of what it costs with 1,000 keys, within {FLAT} wanted"
    memory = results.get("memory", {}).get("consume", {}).get("eventkit", MEMORY)
    if memory < MEMORY:
        yield f"memory, consume: {memory:,} a second, {MEMORY:,} wanted"


def _missed_flat(broker: str, found: dict[str, Any]) -> Iterator[str]:
    topics, backlog = found.get("topics", {}), found.get("backlog", {})
    for many, cost in topics.items():
        if cost > FLAT * topics["1"]:
            yield f"{broker}, {many} topics: {cost / topics['1']:.2f} of what a message of one costs, {FLAT} wanted"
    if "1,000,000" in backlog:
        few, most = backlog["30,000"]["microseconds"], backlog["1,000,000"]["microseconds"]
        if most > FLAT * few:
            yield f"{broker}, a million waiting: {most / few:.2f} of what a message costs with 30,000, {FLAT} wanted"
        few, most = backlog["1,000"]["megabytes"], backlog["1,000,000"]["megabytes"]
        if most > FLAT * few:
            yield f"{broker}, a million waiting: {most / few:.2f} of the memory with 1,000, {FLAT} wanted"
    if found.get("start_up", {}).get("first", 0.0) > START:
        yield f"{broker}, start of 200 handlers: {found['start_up']['first']:.2f} s, {START:g} wanted"
