"""Every physical name on every broker: pure functions, covered by a golden file.

A logical name is made of letters, digits, `.`, `_` and `-`. What stands on the broker is
`<namespace>.<name>.<suffix>`: `shop.orders`, `shop.shipping.inbox`, `shop.shipping.retry`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from eventkit.errors import DeclarationError

Kind: TypeAlias = Literal["topic", "inbox", "retry", "dead", "reply"]

SUFFIXES: dict[Kind, str] = {"topic": "", "inbox": "inbox", "retry": "retry", "dead": "dead", "reply": "reply"}
"""What follows the logical name, by kind. A topic may not end in one of these words."""

_LOGICAL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_RESERVED = tuple(f".{word}" for word in SUFFIXES.values() if word)
_DIGEST = 10


def logical(name: object, what: str) -> str:
    """The name, if it is a legal logical one; else a DeclarationError that begins with `what`."""
    if not isinstance(name, str) or not _LOGICAL.fullmatch(name) or ".." in name:
        raise DeclarationError(
            f"{what}: {name!r} is no name: use letters, digits, '.', '_' and '-', with a letter or digit at both ends"
        )
    if name.endswith(_RESERVED):
        raise DeclarationError(f"{what}: {name!r} ends in a word that eventkit keeps for its own channels: {_RESERVED}")
    return name


@dataclass(frozen=True, slots=True)
class Naming:
    """The rules of one broker and one namespace."""

    namespace: str
    longest: int
    """In characters; a longer name is cut and ends in a hash of the whole."""
    separator: str = "."
    """Stands for each '.' where the broker gives the dot a meaning. Must not be legal in logical names."""

    def channel(self, kind: Kind, name: str, physical: str | None = None) -> str:
        """The name of a topic, inbox, retry, dead-letter or reply channel. A `physical` one is taken as it is."""
        return physical if physical is not None else self.join(name, SUFFIXES[kind])

    def group(self, name: str) -> str:
        """The name of a consumer group, durable or queue."""
        return self.join(name)

    def read(self, channel: str) -> tuple[Kind, str] | None:
        """Which kind of channel this is, and its logical name; None: it lies outside of this namespace. One whose name
        was cut is taken for a topic: of that name it is the same channel."""
        name = channel.replace(self.separator, ".")
        if self.namespace:
            if not name.startswith(f"{self.namespace}."):
                return None
            name = name.removeprefix(f"{self.namespace}.")
        for kind, word in SUFFIXES.items():
            if word and name.endswith(f".{word}"):
                return kind, name.removesuffix(f".{word}")
        return "topic", name

    def groups(self, channels: Iterable[str]) -> list[str]:
        """Those whose dead-letter channels are among these. One whose name was cut cannot be told."""
        read = map(self.read, channels)
        return sorted({found[1] for found in read if found is not None and found[0] == "dead"})

    def source(self, channel: str) -> tuple[Kind, str, str | None] | None:
        """What a group reads there, as the parts of an `Address`; None: it is its retry channel, or no source."""
        found = self.read(channel)
        if found is None:
            return "topic", channel, channel
        return (*found, None) if found[0] in ("topic", "inbox") else None

    def join(self, *parts: str) -> str:
        """These parts below the namespace, legal on the broker."""
        whole = ".".join(part for part in (self.namespace, *parts) if part)
        name = whole.replace(".", self.separator)
        if len(name) <= self.longest:
            return name
        digest = hashlib.sha256(whole.encode()).hexdigest()[:_DIGEST]
        return f"{name[: self.longest - _DIGEST - 1]}-{digest}"


def kafka(namespace: str) -> Naming:
    """Topics and groups: 249 characters of [a-zA-Z0-9._-] (Kafka, `Topic.validate`)."""
    return Naming(namespace, longest=249)


def rabbit(namespace: str) -> Naming:
    """Queues may have 255 bytes, exchanges 127 (AMQP 0-9-1; clients check it). So all are kept below that."""
    return Naming(namespace, longest=127)


def nats(namespace: str) -> Naming:
    """Streams and durables may not hold '.', '*', '>', '/' or white space, and name folders; a subject's '.' makes a
    new token, so that `orders.eu` would lie inside `orders`. So '=' stands for each dot."""
    return Naming(namespace, longest=200, separator="=")


def redis(namespace: str) -> Naming:
    """Keys may be anything; these are kept short enough to read."""
    return Naming(namespace, longest=240)


def memory(namespace: str) -> Naming:
    """Nothing is too long for a dictionary."""
    return Naming(namespace, longest=10_000)
