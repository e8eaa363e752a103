"""What can go wrong while a broker is provided."""

from __future__ import annotations

from collections.abc import Sequence


class NotThisWay(Exception):
    """One way to a broker does not work here; its text is the reason, for a person.

    `aloud`: it was expected to work, so that a person wants to know although another way may follow.
    """

    def __init__(self, reason: str, *, aloud: bool = False) -> None:
        super().__init__(reason)
        self.aloud = aloud


class BrokerUnavailable(Exception):
    """No way to the broker works here. `tried` has each way and why it failed."""

    def __init__(self, name: str, tried: Sequence[tuple[str, str]]) -> None:
        self.name = name
        self.tried = tuple(tried)
        ways = "\n".join(f"  {way}: {reason}" for way, reason in tried)
        super().__init__(f"no {name} broker can be had here. Tried in this order:\n{ways}")

    def __reduce__(self) -> tuple[type[BrokerUnavailable], tuple[str, tuple[tuple[str, str], ...]]]:
        return type(self), (self.name, self.tried)
