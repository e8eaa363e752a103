"""The brokers that the rig can break: one server each, behind a proxy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from eventkit.testing.brokers import NAMES
from tests.breakable import Breakable

B = TypeVar("B", bound=Breakable)

ALL = NAMES
DURABLE = {"redis": {"appendfsync": "always"}}
"""What a server needs so that what it has acknowledged survives its end by -9. With `everysec`, Redis' default, it may
put off the write itself while an earlier fsync is slow."""
_LEASES = {"kafka": 6.0}
"""Seconds. Kafka's brokers take no less unless told. On a busy machine a process stands still for two; then its group
is made anew and all that it held comes again, so that more comes than is handled."""


class Single(Breakable):
    """One server."""

    @property
    def version(self) -> str:
        return self.broker.version


def leased(broker: B) -> B:
    """The same broker, its adapters set as in all runs of the rig."""
    return broker.with_lease(_LEASES[broker.name]) if broker.name in _LEASES else broker


@contextmanager
def target(name: str) -> Iterator[Single]:
    """A broker of its own, ended afterwards."""
    found = Single(name, DURABLE.get(name, {}))
    try:
        yield leased(found)
    finally:
        found.stop()
