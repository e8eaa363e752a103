"""One stream that a consumer reads, and what the consumer holds of it."""

from __future__ import annotations

from typing import TypeAlias

from eventkit.adapter import Address, Delivery
from eventkit_redis.keys import Keys

Token: TypeAlias = "tuple[Source, bytes]"  # noqa: S105 - no secret
"""One arrival of one entry. Compared by identity: another arrival of the same entry is another token."""


class Source:
    """A stream of one group."""

    __slots__ = (
        *("acking", "address", "cursor", "deletes", "done", "held", "key", "moving", "name", "newest"),
        *("released", "taken"),
    )

    def __init__(self, address: Address, keys: Keys) -> None:
        self.address = address
        self.key = keys.stream(address)
        self.name = self.key.encode()
        self.deletes = address.kind in {"inbox", "retry"}
        """Finished entries are deleted: nobody else reads them, and the stream does not grow."""
        self.taken = keys.taken(self.key) if self.deletes else self.key
        """Where it is kept what was taken over; of a stream that deletes nothing its entries tell."""
        self.cursor: bytes = b"0-0"
        """Where the search for what others left behind goes on."""
        self.newest = (0, 0)
        """The highest entry that has come."""
        self.held: dict[bytes, Token] = {}
        """Delivered, not settled."""
        self.moving: dict[bytes, Token] = {}
        """Their copies are on the way."""
        self.done: list[bytes] = []
        """Settled, Redis is not told yet."""
        self.acking: set[bytes] = set()
        """Settled, Redis was told and has not answered."""
        self.released: dict[bytes, Delivery] = {}
        """To be given back, Redis is not told yet."""

    def leased(self) -> list[bytes]:
        """What must stay ours."""
        return [*self.held, *self.moving, *self.done, *self.acking]

    def ours(self, entry: bytes) -> bool:
        """Is it here already? Then it is not to be delivered again."""
        found = entry in self.held or entry in self.moving or entry in self.acking or entry in self.done
        return found or entry in self.released

    def comes_again(self, first: bytes, last: bytes) -> bool:
        """May a part of what was read, from `first` to `last`, have come before? A group that was made again, or whose
        Redis failed over to a replica that was behind, is read once more from an earlier entry."""
        before, self.newest = self.newest, max(self.newest, _parts(last))
        return _parts(first) <= before


def _parts(entry: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number)
