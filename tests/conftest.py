"""The brokers under test: each provided once a run, the first way that works."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from eventkit.testing.brokers import Broker, BrokerUnavailable, provide


@pytest.fixture(scope="session")
def broker() -> Iterator[Callable[[str], Broker]]:
    """Gives a real broker by name. One that cannot be had skips on a laptop and fails under CI."""
    given: dict[str, Broker | BrokerUnavailable] = {}
    with ExitStack() as stack:

        def give(name: str) -> Broker:
            if name not in given:
                try:
                    given[name] = provide(name)
                    stack.callback(given[name].stop)
                except BrokerUnavailable as error:
                    given[name] = error
            found = given[name]
            if isinstance(found, BrokerUnavailable):
                (pytest.fail if os.environ.get("CI") else pytest.skip)(str(found))
            return found

        yield give
