"""The headers of a record, as they lie in it (pure).

Records of one kind have their headers at the same places: the same names, with values of the same lengths. Such a
layout is worked out once; after that a record is known by it, and a value is cut out when it is asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

from eventkit import headers as h
from eventkit.headers import Alike

_MOST, _ALIKE = 500, 4
"""How many layouts are remembered: in all, and of one length."""
_LONGEST = 1_024
"""Bytes of headers. Longer ones are those of copies, of which hardly two are alike."""
_NAMES = 10_000
_new = object.__new__


class Names(dict[str, str]):
    """Names of headers and what becomes of them, remembered: there are few, and each message has a dozen."""

    def __init__(self, was: str, becomes: str) -> None:
        super().__init__()
        self._was = was
        self._becomes = becomes

    def __missing__(self, name: str) -> str:
        other = self._becomes + name[len(self._was) :] if name.startswith(self._was) else name
        if len(self) < _NAMES:
            self[name] = other
        return other


_FROM_WIRE = Names("ce_", "ce-")


class _Layout:
    __slots__ = ("cut", "headers", "places", "same")

    def __init__(
        self,
        cut: Callable[[bytes], tuple[bytes, ...]],
        same: tuple[bytes, ...],
        headers: dict[str, str],
        places: dict[str, slice],
    ) -> None:
        self.cut = cut
        """Takes out what all records of this layout have in common,"""
        self.same = same
        """namely this."""
        self.headers = headers
        """Of the first of them."""
        self.places = places
        """Where the values are that differ."""


class Layouts:
    """Those that were met."""

    def __init__(self) -> None:
        self._known: dict[int, list[_Layout]] = {}
        self._count = 0

    def read(self, block: bytes) -> Mapping[str, str]:
        """The headers of one record, from their number on, by their names in `eventkit.headers`. Names and values that
        are no text are left out. ValueError or IndexError where they are damaged."""
        known = self._known.get(len(block))
        if known is not None and block.isascii():
            for layout in known:
                if layout.cut(block) == layout.same:
                    headers = _new(Alike)  # what its own constructor does, at half the price
                    headers.block, headers.places, headers.shared = block, layout.places, layout.headers
                    return headers
        places = list(_places(block))
        said = {name: text for name, text, _ in places}
        if len(block) <= _LONGEST and self._count < _MOST and len(known or ()) < _ALIKE and block.isascii():
            self._remember(block, said, places)
        return said

    def _remember(self, block: bytes, headers: dict[str, str], places: Sequence[tuple[str, str, slice]]) -> None:
        differ = {name: place for name, _, place in places if name not in h.COMMON}
        form, at = "", 0
        for place in sorted(differ.values(), key=lambda place: place.start):
            form += f"{place.start - at}s{place.stop - place.start}x"
            at = place.stop
        cut = struct.Struct(f"{form}{len(block) - at}s").unpack
        layout = _Layout(cut, cut(block), headers.copy(), differ)
        self._known.setdefault(len(block), []).append(layout)
        self._count += 1


def _places(block: bytes) -> Iterator[tuple[str, str, slice]]:
    """Name, value, and where the value is, of those that are text."""
    count, at = varint(block, 0)
    for _ in range(count):
        length, at = varint(block, at)
        name, at = block[at : at + length], at + length
        length, at = varint(block, at)
        place = slice(at, at + max(length, 0))
        at = place.stop
        if at > len(block):
            raise ValueError("a record is shorter than it says")
        if length >= 0:
            try:
                yield _FROM_WIRE[name.decode()], block[place].decode(), place
            except UnicodeDecodeError:
                continue


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number as Kafka writes it, and where it ends. IndexError where `data` does."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number >> 1 ^ -(number & 1), at
        shift += 7
