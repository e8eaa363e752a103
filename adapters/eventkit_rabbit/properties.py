"""What stands where in the properties of an AMQP 0-9-1 message."""

from __future__ import annotations

TOMBSTONE = "ek-tombstone"
"""AMQP knows no missing body: a tombstone is an empty one with this header."""
UNTIL = "ek-until"
"""When a delay is longer than its rung: due, in milliseconds since 1970. The message is parked again before."""
KEPT = "ek-kept-"
"""Stands before a user's header whose name means something to the broker."""

BROKERS = frozenset({
    "CC", "BCC", "x-death", "x-first-death-queue", "x-first-death-reason", "x-first-death-exchange",
    "x-last-death-queue", "x-last-death-reason", "x-last-death-exchange", "x-delivery-count", "x-acquired-count",
})  # fmt: skip
"""Headers that the broker acts on or writes. They are no part of a message, as far as users see it."""

# flags, in the order in which the properties follow each other
CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE, PRIORITY = 0x8000, 0x4000, 0x2000, 0x1000, 0x0800
CORRELATION_ID, REPLY_TO, EXPIRATION, MESSAGE_ID, TIMESTAMP, TYPE = 0x0400, 0x0200, 0x0100, 0x0080, 0x0040, 0x0020

MANY = 4096
"""Names and types whose encoded form is kept: they come again and again."""
