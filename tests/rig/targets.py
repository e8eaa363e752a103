"""The brokers that the rig can break: one server each, behind a proxy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from eventkit.testing.brokers import NAMES
from tests.breakable import Breakable

ALL = NAMES
DURABLE = {"redis": {"appendfsync": "always"}}
"""What a server needs so that what it has acknowledged survives its end by -9. With `everysec`, Redis' default, it may
put off the write itself while an earlier fsync is slow."""


class Single(Breakable):
    """One server."""

    @property
    def version(self) -> str:
        return self.broker.version


@contextmanager
def target(name: str) -> Iterator[Single]:
    """A broker of its own, ended afterwards."""
    found = Single(name, DURABLE.get(name, {}))
    try:
        yield found
    finally:
        found.stop()
