"""The ledger: which behaviour holds on which backend, by the run that has just been made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

Result: TypeAlias = Literal["pass", "fail", "refused", "vacuous"]


@dataclass
class Found:
    """One backend as it was found."""

    version: str
    how: str
    seconds: float = 0.0
    """That its checks took."""


@dataclass
class Ledger:
    """Filled by the tests of the contract, printed and written at the end of the run."""

    backends: dict[str, Found] = field(default_factory=dict)
    results: dict[str, dict[str, Result]] = field(default_factory=dict)
    """By behaviour, then by backend."""
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)
    """Why a result is no pass, by behaviour and backend."""

    def add(self, check: str, backend: str, result: Result, reason: str, seconds: float) -> None:
        self.results.setdefault(check, {})[backend] = result
        self.backends[backend].seconds += seconds
        if reason:
            self.reasons[check, backend] = reason

    def found(self, backend: str, version: str, how: str) -> None:
        """Said once, by whoever provided it."""
        self.backends.setdefault(backend, Found(version, how))

    def packed(self) -> dict[str, Any]:
        """As plain values, for another process."""
        backends = {name: (found.version, found.how, found.seconds) for name, found in self.backends.items()}
        reasons = [(check, backend, reason) for (check, backend), reason in self.reasons.items()]
        return {"backends": backends, "results": self.results, "reasons": reasons}

    def unpack(self, packed: dict[str, Any]) -> None:
        """Add what another process has found."""
        for name, (version, how, seconds) in packed["backends"].items():
            self.found(name, version, how)
            self.backends[name].seconds += seconds
        for check, row in packed["results"].items():
            self.results.setdefault(check, {}).update(row)
        self.reasons |= {(check, backend): reason for check, backend, reason in packed["reasons"]}

    def write(self, file: Path) -> None:
        """As JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        backends = {
            name: {"version": found.version, "how": found.how, "seconds": round(found.seconds, 1)}
            for name, found in self.backends.items()
        }
        reasons: dict[str, dict[str, str]] = {}
        for (check, backend), reason in self.reasons.items():
            reasons.setdefault(check, {})[backend] = reason
        file.write_text(
            json.dumps({"backends": backends, "results": self.results, "reasons": reasons}, indent=2) + "\n"
        )

    def lines(self, sentences: Mapping[str, str], order: Sequence[str]) -> list[str]:
        """As a table for people: behaviours in the order of the contract, backends in the given one."""
        backends = [name for name in order if name in self.backends]
        widths = [max(len(name), len("vacuous")) for name in backends]
        lines = ["     " + "  ".join(name.ljust(width) for name, width in zip(backends, widths, strict=True))]
        for check, sentence in sentences.items():
            if check not in self.results:
                continue
            row = [
                self.results[check].get(name, "-").ljust(width) for name, width in zip(backends, widths, strict=True)
            ]
            lines.append(f"{check:<4} {'  '.join(row)}  {sentence}")
        lines.append("")
        for name in backends:
            found = self.backends[name]
            count = sum(name in row for row in self.results.values())
            lines.append(f"{name}: {found.version} ({found.how}), {count} checks in {found.seconds:.1f} s")
        lines += [f"{check} on {name}: {reason}" for (check, name), reason in self.reasons.items()]
        return lines
