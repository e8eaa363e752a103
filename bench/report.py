"""The results as a table in docs/bench.md."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

_PAGE = Path("docs/bench.md")
_BARS = {"redis": 5.0, "nats": 2.0, "rabbit": 2.5, "kafka": 50.0}
_RAW_BAR = 0.8


def write_table(results: dict[str, Any]) -> None:
    lines = [
        "# Speed",
        "",
        "One run, one machine, the brokers beside the clients on it: take the ratios, not the rates. Each message is",
        "about 200 bytes, validated into a nested pydantic model and acknowledged; eventkit runs with all guarantees",
        "on. *raw* is the broker's client written by hand, batched and pipelined, with the same bytes on the wire;",
        "*FastStream* is its typed handler, set to acknowledge after success. `python -m bench` makes this page.",
        "",
        f"Python {platform.python_version()}, {platform.system()}.",
        "",
        "| broker | what | eventkit | raw | FastStream | of raw | of FastStream |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        _rate_row(broker, name, found[name])
        for broker, found in results.items()
        for name in ("consume", "publish_many", "publish_one", "publish_100_concurrent")
        if name in found
    ]
    lines += ["", "| broker | milliseconds | eventkit p50 | p99 | raw p50 | p99 |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: |"]
    for broker, found in results.items():
        for name in ("end_to_end_ms", "request_reply_ms"):
            if name in found:
                ours, raw = found[name]["eventkit"], found[name].get("raw", {})
                what = name.removesuffix("_ms").replace("_", " ")
                lines.append(
                    f"| {broker} | {what} | {ours['p50']:.2f} | {ours['p99']:.2f} "
                    f"| {raw.get('p50', '')} | {raw.get('p99', '')} |"
                )
    lines += ["", "| broker | messages waiting | peak memory of a consumer, MB |", "| --- | ---: | ---: |"]
    for broker, found in results.items():
        for waiting, megabytes in found.get("memory_mb", {}).items():
            lines.append(f"| {broker} | {waiting.removesuffix(' waiting')} | {megabytes:.0f} |")
    _PAGE.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    for miss in misses(results):
        print(f"below the bar: {miss}")


def misses(results: dict[str, Any]) -> list[str]:
    """The bars that this run did not reach."""
    found = []
    for broker, measured in results.items():
        for name in ("consume", "publish_many"):
            rates = measured.get(name, {})
            if "raw" in rates and rates["eventkit"] < _RAW_BAR * rates["raw"]:
                found.append(f"{broker} {name}: {rates['eventkit'] / rates['raw']:.2f} of raw, {_RAW_BAR} wanted")
        consumed = measured.get("consume", {})
        if "faststream" in consumed and consumed["eventkit"] < _BARS[broker] * consumed["faststream"]:
            ratio = consumed["eventkit"] / consumed["faststream"]
            found.append(f"{broker} consume: {ratio:.1f} of FastStream, {_BARS[broker]} wanted")
        delays = measured.get("end_to_end_ms")
        if delays and delays["eventkit"]["p50"] > 1.25 * delays["raw"]["p50"]:
            found.append(
                f"{broker} end to end: {delays['eventkit']['p50'] / delays['raw']['p50']:.2f} of raw, 1.25 wanted"
            )
    return found


def _rate_row(broker: str, name: str, rates: dict[str, float]) -> str:
    ours, raw, thin = rates["eventkit"], rates.get("raw"), rates.get("faststream")
    return (
        f"| {broker} | {name.replace('_', ' ')} | {ours:,} | {raw or '':,} | {thin or '':,} "
        f"| {ours / raw:.2f} | {ours / thin:.1f} |"
        if raw and thin
        else f"| {broker} | {name.replace('_', ' ')} | {ours:,} | | | | |"
    )
