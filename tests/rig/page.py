"""docs/reliability.md: what runs of the rig have shown, a row a run. The text stands here, the figures in the page."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path

from tests.rig.run import Result

TEXT = Path(__file__).with_name("page.md")
_HEAD = (
    "| broker | kill rounds | acknowledged | lost | left over | wrongly dead | out of order | overtaken | duplicated | "
    "unknown | drained in | killed with -9 | besides | seed | version | when |"
)
_RULE = "|" + " --- |" * (_HEAD.count("|") - 1)


def add(file: Path, result: Result, version: str) -> None:
    """Write the page with this run's row; a row of the same broker is replaced, the others are kept."""
    rows = _rows(file.read_text(encoding="utf-8")) if file.exists() else {}
    rows[result.name] = row(result, version)
    table = "\n".join([_HEAD, _RULE, *rows.values()])
    file.write_text(TEXT.read_text(encoding="utf-8").replace("<!-- table -->", table), encoding="utf-8")


def row(result: Result, version: str) -> str:
    """One run, as a row of the table."""
    count = result.count
    cells = [
        result.name,
        result.rounds,
        f"{count.acknowledged:,}",
        result.lost,
        result.left,
        len(count.wrong_letters) + len(count.overtried),
        len(count.out_of_order),
        f"{count.overtaken:,}",
        f"{count.duplicated:,}",
        f"{count.unknown:,}",
        f"{result.drained:.0f} s",
        _list(result.kills),
        _list(result.also),
        result.seed,
        version,
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _list(counts: object) -> str:
    assert isinstance(counts, dict)
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _rows(text: str) -> dict[str, str]:
    found = {}
    lines = iter(text.splitlines())
    for line in lines:
        if line == _HEAD:
            next(lines)
            for row_ in lines:
                if not row_.startswith("|"):
                    break
                found[row_.split("|")[1].strip()] = row_
    return found
