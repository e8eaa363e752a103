"""Physical names."""

from __future__ import annotations

from collections.abc import Iterable

from eventkit import names
from eventkit.adapter import Address, Group


class Names:
    """Of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._naming = names.rabbit(namespace)
        self._prefix = f"{namespace}." if namespace else ""
        self._exchanges: dict[Address, str] = {}

    def exchange(self, address: Address) -> str:
        """Of a topic or an inbox."""
        name = self._exchanges.get(address)
        if name is None:
            name = self._exchanges[address] = self._naming.channel(address.kind, address.name, address.physical)
        return name

    def queue(self, group: str) -> str:
        return self._naming.group(group)

    def dead(self, group: str) -> str:
        return self._naming.channel("dead", group)

    def rung(self, group: str, label: str) -> str:
        return f"{self._naming.channel('retry', group)}:{label}"  # no ':' in logical names: a name of its own

    def groups(self, queues: Iterable[str]) -> list[str]:
        """Those whose dead letters are kept in one of these queues."""
        return self._naming.groups(queues)

    def source(self, exchange: str) -> Address:
        """The address of an exchange that a group is bound to."""
        return Address(*(self._naming.source(exchange) or ("topic", exchange, exchange)))

    def stranger(self, exchange: str) -> Address:
        """The address of an exchange that a group is bound to but does not name: an earlier release's topic."""
        own = self._prefix and exchange.startswith(self._prefix)
        return Address("topic", exchange.removeprefix(self._prefix), None if own else exchange)


def lives_with_consumer(group: Group) -> bool:
    """A lone reply address: nothing of it stands on the broker."""
    return bool(group.sources) and all(source.kind == "reply" for source in group.sources)
