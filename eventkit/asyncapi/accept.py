"""Accepted breaks: a file that keeps which changes were agreed on, and why.

accepted:
- change: field-removed orders/OrderPlaced/coupon
  before: string
  after: ''
  reason: nobody has read it since the new shop (ticket 812)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventkit.asyncapi.changes import Change
from eventkit.asyncapi.contract import parse
from eventkit.asyncapi.errors import DocumentError
from eventkit.asyncapi.texts import to_json, to_yaml

FILE = "asyncapi-accepted.yaml"
"""Beside the document, unless told otherwise."""
_HEAD = "# Breaking changes that were agreed on. `eventkit docs check` lets exactly these pass.\n"


@dataclass(frozen=True, slots=True)
class Accepted:
    """One change that may happen."""

    change: str
    before: str
    after: str
    reason: str

    def allows(self, change: Change) -> bool:
        """Exactly this change: not a later one in the same place."""
        return (self.change, self.before, self.after) == (change.id, change.before, change.after)


def load(path: Path) -> list[Accepted]:
    """What the file holds; nothing, if there is none. DocumentError for an entry that says too little."""
    if not path.exists():
        return []
    entries = parse(path.read_text(encoding="utf-8") or "{}", str(path)).get("accepted", [])
    if not isinstance(entries, list):
        raise DocumentError(f"{path}: `accepted` is no list")
    return [_entry(path, number, entry) for number, entry in enumerate(entries, 1)]


def _entry(path: Path, number: int, entry: Any) -> Accepted:
    if not isinstance(entry, dict):
        raise DocumentError(f"{path}: entry {number} is no mapping")
    if missing := [word for word in ("change", "reason") if not str(entry.get(word) or "").strip()]:
        raise DocumentError(f"{path}: entry {number} has no {' and no '.join(missing)}")
    return Accepted(
        str(entry["change"]), str(entry.get("before") or ""), str(entry.get("after") or ""), str(entry["reason"])
    )


def add(path: Path, changes: Sequence[Change], reason: str) -> None:
    """Write these down as accepted."""
    if not reason.strip():
        raise DocumentError("a change is accepted with a reason: --reason says it")
    known = load(path)
    new = [
        Accepted(change.id, change.before, change.after, reason.strip())
        for change in changes
        if not any(entry.allows(change) for entry in known)
    ]
    content = {
        "accepted": [
            {"change": entry.change, "before": entry.before, "after": entry.after, "reason": entry.reason}
            for entry in sorted([*known, *new], key=lambda entry: (entry.change, entry.before, entry.after))
        ]
    }
    text = to_json(content) if path.suffix == ".json" else _HEAD + to_yaml(content)
    path.write_text(text, encoding="utf-8")
