"""docs/guarantees.md, from the ledger of the last full run and from the capabilities of the adapters.

./scripts/test && .venv/bin/python -m tests.guarantees
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from eventkit import discovery
from eventkit.adapter import Capabilities
from eventkit.contract import CHECKS
from tests.backends import ALL

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "guarantees.md"
LEDGER = ROOT / "build" / "ledger.json"
FAMILIES = {
    "D": "Delivery",
    "R": "Routing",
    "O": "Order",
    "F": "Failure",
    "L": "Lifecycle",
    "M": "Metadata",
    "H": "What a handler runs in",
    "W": "What is accepted",
    "V": "The next release",
    "S": "Scale",
    "B": "Batches",
    "Q": "Requests",
    "C": "Capabilities, proved both ways",
}


def capabilities() -> list[str]:
    """What each broker can and cannot do, as its adapter says."""
    found = {name: discovery.load(name).capabilities for name in ALL}
    lines = [f"| | {' | '.join(ALL)} |", "| --- |" + " --- |" * len(ALL)]
    for name, question in _questions().items():
        cells = " | ".join(_shown(getattr(found[backend], name)) for backend in ALL)
        lines.append(f"| {question} | {cells} |")
    return lines


def behaviours(ledger: Mapping[str, Any]) -> list[str]:
    """Each behaviour, and what the run found on each backend."""
    lines: list[str] = []
    reasons = ledger.get("reasons", {})
    for family, title in FAMILIES.items():
        mine = sorted((c for c in CHECKS.values() if c.id[0] == family), key=lambda check: int(check.id[1:]))
        if not mine:
            continue
        lines += ["", f"## {title}", "", f"| | | {' | '.join(ALL)} |", "| --- | --- |" + " --- |" * len(ALL)]
        for check in mine:
            results = ledger["results"].get(check.id, {})
            cells = " | ".join(results.get(backend, "not run") for backend in ALL)
            lines.append(f"| {check.id} | {check.sentence} | {cells} |")
        told = [(c.id, backend, why) for c in mine for backend, why in reasons.get(c.id, {}).items()]
        if told:
            lines += ["", *(f"* {check} on {backend}: {why}" for check, backend, why in told)]
    return lines


def page(ledger: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {found['version']}" for name, found in ledger["backends"].items())
    return "\n".join(
        [
            "# Guarantees",
            "",
            "Each sentence is a check of `eventkit.contract` that ran on each backend; this page is written from the",
            f"ledger of a run on {versions}.",
            "*pass*: it holds. *refused*: the broker cannot, and asking for it is refused at start. *vacuous*: it says",
            "nothing there, and why stands below its table.",
            *behaviours(ledger),
            "",
            "## What the brokers can",
            "",
            *capabilities(),
            "",
        ]
    )


def _questions() -> dict[str, str]:
    """The fields of Capabilities with the first sentence of their docstrings."""
    source = inspect.getsource(Capabilities)
    found = {}
    for field in dataclasses.fields(Capabilities):
        after = source.split(f"    {field.name}:", 1)[1]
        found[field.name] = " ".join(after.split('"""')[1].split())
    return found


def _shown(value: object) -> str:
    if value is None:
        return "as long as it takes"
    if isinstance(value, timedelta):
        return f"{value.total_seconds() / 60:g} min"
    return {True: "yes", False: "no"}[bool(value)]


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(LEDGER.read_text())))
