"""A deliberate break of the source, and the check that must turn red."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One break: `old`, which stands exactly once in `file`, becomes `new`."""

    name: str
    """What is broken, as one would say it in a review."""
    file: str
    """From the root of the project."""
    old: str
    new: str
    check: str
    """A behaviour of the contract (`D6`), or another test (`tests/unit/test_lanes.py::test_...`)."""
    backend: str = "memory"
    """On which that check must fail."""
    fails_with: str = ""
    """How what the check says begins. Empty: any assertion of it. Where an error ends the check that it does not
    expect, and that is what this break does to a user, the error's name."""

    @property
    def test(self) -> str:
        """The check as pytest names it."""
        if "::" in self.check:
            return self.check
        return f"tests/contract/test_contract.py::test_contract[{self.check}-{self.backend}]"

    def applied(self, text: str) -> str:
        """The broken source. ValueError where it does not apply exactly once: the source has moved on."""
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"{self.name}: its old text stands {found} times in {self.file}, not once: {self.old!r}")
        return text.replace(self.old, self.new)
