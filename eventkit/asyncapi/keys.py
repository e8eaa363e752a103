"""The keys of a document: legal, unique, and the same from run to run (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ILLEGAL = re.compile(r"[^A-Za-z0-9._-]+")


class Keys:
    """Hands out each key once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def unique(self, *wishes: str) -> str:
        """The first wish that is free; the last one with a number, if none is."""
        for wish in wishes:
            key = legal(wish)
            if key not in self._taken:
                self._taken.add(key)
                return key
        number = 2
        while (key := f"{legal(wishes[-1])}.{number}") in self._taken:
            number += 1
        self._taken.add(key)
        return key


def legal(text: str) -> str:
    """With only the characters that AsyncAPI allows in a key."""
    return _ILLEGAL.sub("_", text) or "_"
