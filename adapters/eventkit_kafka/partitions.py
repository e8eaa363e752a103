"""Which partition a record goes to (pure)."""

from __future__ import annotations

import struct
from functools import lru_cache
from zlib import crc32

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED = 0x9747B28C

DELAYS = (1.0, 5.0, 30.0, 120.0, 600.0, 3600.0)
"""Seconds. A retry topic has a class of partitions for each, and one for what waits longer: messages of one class are
due nearly in the order they came, so that a late one at the head holds up few behind it."""
CLASSES = len(DELAYS) + 1


@lru_cache(maxsize=65536)
def key_hash(key: bytes) -> int:
    """Murmur2, as Java's client and aiokafka place keys; this one is quicker than aiokafka's."""
    length = len(key)
    h = _SEED ^ length
    whole = length >> 2
    for word in struct.unpack_from(f"<{whole}I", key):
        k = word * _M & _MASK
        h = (h * _M & _MASK) ^ ((k ^ k >> 24) * _M & _MASK)
    rest = length & 3
    if rest:
        h = (h ^ int.from_bytes(key[-rest:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return (h ^ h >> 15) & 0x7FFFFFFF


def delay_class(seconds: float) -> int:
    """From 0, the shortest."""
    for place, longest in enumerate(DELAYS):
        if seconds <= longest:
            return place
    return len(DELAYS)


def retry_partition(seconds: float, key: bytes | None, partitions: int, turn: int) -> int:
    """In a retry topic of so many partitions. One key stays in one partition of its class; `turn` spreads the rest."""
    place = delay_class(seconds)
    spread = partitions // CLASSES
    if spread < 1:  # made by somebody else, with fewer: neighbours share
        return place * partitions // CLASSES
    return place * spread + (turn if key is None else crc32(key)) % spread


def reply_partition(name: str, partitions: int) -> int:
    """Which partition of its service's reply topic an instance reads."""
    return crc32(name.encode()) % partitions
