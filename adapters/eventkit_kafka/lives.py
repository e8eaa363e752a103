"""How often the readers of a partition died with a message in hand (pure).

Kafka counts no deliveries. So a reader says in the metadata of its commits that it lives, and when it leaves in order
that it does so. Whoever finds a partition whose reader only lived knows that it died, and how far it had read: all up
to there that is not settled was in its hands. Those places are kept until they are behind the mark.
"""

from __future__ import annotations

from collections.abc import Sequence

_SEPARATOR = ";"
_MOST = 20
"""Deaths that are remembered."""


def write(watermark: int, deaths: Sequence[int], *, living: bool) -> str:
    """As the end of a commit's metadata: does its reader live on, and how far had those read that died?"""
    ahead = [str(place - watermark) for place in deaths[-_MOST:] if place > watermark]
    return _SEPARATOR + ",".join(["1" if living else "0", *ahead]) if living or ahead else ""


def read(watermark: int, metadata: str) -> tuple[bool, list[int]]:
    """The reverse. Anything that we did not write says nothing."""
    _, _, text = metadata.partition(_SEPARATOR)
    numbers = text.split(",")
    if not all(number.isascii() and number.isdecimal() and len(number) < 19 for number in numbers):
        return False, []
    return numbers[0] == "1", [watermark + int(number) for number in numbers[1:]]


def rest(metadata: str) -> str:
    """The metadata without that."""
    return metadata.partition(_SEPARATOR)[0]
