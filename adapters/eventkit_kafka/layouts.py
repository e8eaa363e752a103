"""The headers of a record, as they lie in it (pure).

Records of one kind have their headers at the same places: the same names, with values of the same lengths. Such a
layout is worked out once; after that a record is known by it, and a value is cut out when it is asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from eventkit import headers as h

_MOST, _ALIKE = 500, 4
"""How many layouts are remembered: in all, and of one length."""
_LONGEST = 1_024
"""Bytes of headers. Longer ones are those of copies, of which hardly two are alike."""
_NAMES = 10_000
_SAME = frozenset({h.SPECVERSION, h.CONTENT_TYPE, h.VERSION})
"""Headers whose values belong to the layout: there are few."""


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


class _Layout(NamedTuple):
    cut: Callable[[bytes], tuple[bytes, ...]]
    """Takes out what all records of this layout have in common,"""
    same: tuple[bytes, ...]
    """namely this."""
    headers: dict[str, str]
    """Of the first of them."""
    places: dict[str, slice]
    """Where the values are that differ."""


class Headers(Mapping[str, str]):
    """Of one record: its bytes, of which a value becomes text when it is asked for. Hardly any is."""

    __slots__ = ("_block", "_headers", "_places")

    def __init__(self, block: bytes, layout: _Layout) -> None:
        """`block` is ASCII."""
        self._block = block
        _, _, self._headers, self._places = layout

    def __getitem__(self, name: str) -> str:
        place = self._places.get(name)
        return self._headers[name] if place is None else self._block[place].decode()

    def get(self, name: str, default: Any = None) -> Any:
        place = self._places.get(name)
        return self._headers.get(name, default) if place is None else self._block[place].decode()

    def __contains__(self, name: object) -> bool:
        return name in self._headers

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers)

    def __len__(self) -> int:
        return len(self._headers)

    def __repr__(self) -> str:
        return repr(dict(self))


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
                if layout[0](block) == layout[1]:
                    return Headers(block, layout)
        places = list(_places(block))
        headers = {name: said for name, said, _ in places}
        if len(block) <= _LONGEST and self._count < _MOST and len(known or ()) < _ALIKE and block.isascii():
            self._remember(block, headers, places)
        return headers

    def _remember(self, block: bytes, headers: dict[str, str], places: Sequence[tuple[str, str, slice]]) -> None:
        differ = {name: place for name, _, place in places if name not in _SAME}
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
