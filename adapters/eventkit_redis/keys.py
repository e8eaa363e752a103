"""Which keys stand for an address.

What a script touches together lies in one slot of a Redis Cluster: all keys of a group carry the tag `{group}`, a
topic's companions the tag `{topic}`. The topic itself has its plain name, which is the same slot.
"""

from __future__ import annotations

from eventkit import names
from eventkit.adapter import Address, Group


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

    def gaps(self, topic: str) -> str:
        """Hash: by group, what was trimmed before the group had read it."""
        return f"{{{topic}}}.gaps"

    def group(self, group: Group | str) -> str:
        """The consumer group."""
        return self._naming.group(group if isinstance(group, str) else group.name)

    def all(self, group: Group) -> tuple[Address, ...]:
        """All that a group reads: its sources and its retry address."""
        return (*group.sources, group.retry)
