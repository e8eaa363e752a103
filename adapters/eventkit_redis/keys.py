"""Which keys stand for an address.

What a script touches together lies in one slot of a Redis Cluster: all keys of a group carry the tag `{group}`, a
topic's companions the tag `{topic}`. The topic itself has its plain name, which is the same slot.
"""

from __future__ import annotations

import re

from eventkit import names
from eventkit.adapter import Address, Group

_TAGGED = re.compile(r"\{([^{}]+)\}\.(inbox|retry|dead)").fullmatch


class Keys:
    """The names below one namespace."""

    def __init__(self, namespace: str) -> None:
        self._naming = names.redis(namespace)

    def stream(self, address: Address) -> str:
        """The stream of an address; of a `retry` address the one that holds what is due."""
        if address.physical is not None or address.kind in {"topic", "reply"}:
            return self._naming.channel(address.kind, address.name, address.physical)
        return f"{{{self._naming.group(address.name)}}}.{names.SUFFIXES[address.kind]}"

    def due(self, group: str) -> str:
        """Sorted set: what waits in the retry address, by the time it is due in ms."""
        return f"{{{self._naming.group(group)}}}.retry.due"

    def waiting(self, group: str) -> str:
        """Hash: the envelopes of those in `due`."""
        return f"{{{self._naming.group(group)}}}.retry.waiting"

    def taken(self, stream: str) -> str:
        """Sorted set: what a consumer took over from another in a stream whose finished entries are deleted, by the
        time in ms at which that is forgotten. One that is neither here nor in the stream Redis has lost."""
        return f"{stream}.taken"

    def readers(self, group: str) -> str:
        """Sorted set: the consumers that read the group, by the time in ms at which they are forgotten."""
        return f"{{{self._naming.group(group)}}}.readers"

    def begun(self, group: str) -> str:
        """Hash: the topics that the group has begun to read."""
        return f"{{{self._naming.group(group)}}}.begun"

    def gaps(self, topic: str) -> str:
        """Hash: by group, what was trimmed before the group had read it."""
        return f"{{{topic}}}.gaps"

    def group(self, group: Group | str) -> str:
        """The consumer group."""
        return self._naming.group(group if isinstance(group, str) else group.name)

    def dead_of(self, stream: str) -> str | None:
        """The group whose dead letters are kept in this stream; None: it is another one."""
        tagged = _TAGGED(stream)
        found = [] if tagged is None else self._naming.groups([f"{tagged[1]}.{tagged[2]}"])
        return found[0] if found else None

    def source_of(self, stream: str) -> Address | None:
        """The address of a stream that groups read; None: it is a retry stream."""
        tagged = _TAGGED(stream)
        source = self._naming.source(stream if tagged is None else f"{tagged[1]}.{tagged[2]}")
        if tagged is None and (source is None or source[0] != "topic"):
            return Address("topic", stream, stream)  # named like one of ours, but without a tag
        return None if source is None else Address(*source)

    def all(self, group: Group) -> tuple[Address, ...]:
        """All that a group reads: its sources and its retry address."""
        return (*group.sources, group.retry)
