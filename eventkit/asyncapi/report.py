"""What the check says: as text, as JSON, and as GitHub's annotations (pure)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from eventkit.asyncapi.accept import Accepted
from eventkit.asyncapi.changes import Change


@dataclass(frozen=True, slots=True)
class Report:
    """All changes, and which of them are accepted."""

    document: str
    """The committed document's file."""
    changes: Sequence[Change]
    accepted: Sequence[Accepted]

    @property
    def breaks(self) -> list[Change]:
        """The breaking changes that nobody accepted."""
        return [change for change in self.changes if change.breaks and self.reason(change) is None]

    @property
    def unused(self) -> list[Accepted]:
        """Accepted changes that are none any more: the document was written anew since."""
        return [entry for entry in self.accepted if not any(entry.allows(change) for change in self.changes)]

    def reason(self, change: Change) -> str | None:
        """Why it is accepted; None: it is not."""
        return next((entry.reason for entry in self.accepted if entry.allows(change)), None)


def as_text(report: Report) -> str:
    """For people."""
    if not report.changes:
        return f"{report.document} says what the code says.\n"
    width = max(len(change.level) for change in report.changes)
    lines = []
    for change in report.changes:
        lines.append(f"{change.level:<{width}}  {change.id}")
        lines.append(f"{'':<{width}}  {change.text}")
        reason = report.reason(change)
        if reason is not None:
            lines.append(f"{'':<{width}}  accepted: {reason}")
    lines.append("")
    lines.append(_sum(report))
    lines.extend(f"no longer needed in the accepted changes: {entry.change}" for entry in report.unused)
    if report.breaks:
        lines.append(
            "Take the change back, raise the message's version= and upcast the older one, "
            "or accept it: --accept 'CHANGE' --reason 'why'."
        )
    return "\n".join(lines) + "\n"


def _sum(report: Report) -> str:
    compatible = sum(not change.breaks for change in report.changes)
    accepted = sum(bool(change.breaks) for change in report.changes) - len(report.breaks)
    parts = [f"{len(report.breaks)} breaking", f"{compatible} compatible"]
    if accepted:
        parts.insert(1, f"{accepted} accepted")
    return f"{report.document}: {', '.join(parts)}."


def as_json(report: Report) -> str:
    """For programs."""
    return (
        json.dumps(
            {
                "document": report.document,
                "broken": bool(report.breaks),
                "changes": [
                    {
                        "rule": change.rule,
                        "where": change.where,
                        "level": change.level,
                        "breaks": sorted(change.breaks),
                        "text": change.text,
                        "before": change.before,
                        "after": change.after,
                        "accepted": report.reason(change),
                    }
                    for change in report.changes
                ],
                "unused": [entry.change for entry in report.unused],
            },
            indent=2,
            ensure_ascii=False,
        )
        + "\n"
    )


def as_github(report: Report) -> str:
    """Annotations that GitHub shows beside the document."""
    lines = []
    for change in report.changes:
        reason = report.reason(change)
        kind = "notice" if not change.breaks else "error" if reason is None else "warning"
        text = change.text if reason is None else f"{change.text} (accepted: {reason})"
        title = f"{change.level}: {change.id}"
        lines.append(f"::{kind} file={_property(report.document)},title={_property(title)}::{_data(text)}")
    return "\n".join([*lines, _sum(report)]) + "\n"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
