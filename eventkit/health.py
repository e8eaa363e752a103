"""Health: whether the broker is there and all groups read, as one answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eventkit.adapter import Adapter


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the broker can be reached, and all groups consume. Red heals by itself, as far as anything can."""

    ok: bool
    errors: Mapping[str, str] = field(default_factory=dict)
    """By group: why it does not consume."""
    broker: str | None = None
    """Why the broker cannot be reached; None while it can."""

    circuits: Mapping[str, str] = field(default_factory=dict)
    """The handlers whose `Circuit` is open, by name, and since when. That is no error: the group goes on."""

    def as_json(self) -> dict[str, Any]:
        """For an endpoint: `{"status": "ready"}`, or why not; and the circuits that are open."""
        resting = {"circuits": dict(self.circuits)} if self.circuits else {}
        if self.ok:
            return {"status": "ready", **resting}
        found: dict[str, Any] = {"status": "not ready", "errors": dict(self.errors), **resting}
        return found if self.broker is None else {**found, "broker": self.broker}

    def __str__(self) -> str:
        if self.ok:
            return "ready"
        said = [f"the broker cannot be reached ({self.broker})"] if self.broker is not None else []
        said += [f"{group} does not consume ({error})" for group, error in self.errors.items()]
        return "not ready: " + "; ".join(said)


def examine(
    adapter: Adapter, groups: Mapping[str, Exception | None], circuits: Mapping[str, str] | None = None
) -> Health:
    """The health of a bus and of what runs on it: by group, why it does not consume; and the circuits that are open."""
    errors = {name: _said(error) for name, error in groups.items() if error is not None}
    away = adapter.error
    return Health(
        ok=not errors and away is None,
        errors=errors,
        broker=None if away is None else _said(away),
        circuits=circuits or {},
    )


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
