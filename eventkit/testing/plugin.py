"""The pytest plugin: `eventkit_run`, and `--eventkit-broker=redis` to run the same tests on a real broker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from eventkit.service import Service
from eventkit.testing.brokers import NAMES, Broker, BrokerUnavailable, provide
from eventkit.testing.harness import Harness
from eventkit.testing.overrides import Overrides
from eventkit.testing.real import run_on
from eventkit.testing.virtual import Run, run
from eventkit.wire import JSON_SERIALIZER, Serializer

_MEMORY = "memory"


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "where eventkit_run runs services: memory, or a real broker, which is provided"
    parser.getgroup("eventkit").addoption(
        "--eventkit-broker", choices=[_MEMORY, *NAMES], default=None, help=f"{text} ({', '.join(NAMES)})"
    )
    parser.addini("eventkit_broker", f"{text}; the option goes before it", default=_MEMORY)


def pytest_configure(config: pytest.Config) -> None:
    _wanted(config)  # what is mistyped is said before anything runs


def pytest_report_header(config: pytest.Config) -> str | None:
    name = _wanted(config)
    return None if name == _MEMORY else f"eventkit: services run on {name}"


@pytest.fixture(scope="session")
def eventkit_broker(pytestconfig: pytest.Config) -> Iterator[Broker | None]:
    """The real broker that was asked for; None: memory.

    It is the one at EVENTKIT_TEST_<NAME>_URL, a container, an installed server, or one that is installed now. Where
    it cannot be had the test is skipped, and fails where CI is set.
    """
    name = _wanted(pytestconfig)
    if name == _MEMORY:
        yield None
        return
    try:
        broker = provide(name)
    except BrokerUnavailable as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    with broker:
        yield broker


@pytest.fixture
def eventkit_run(eventkit_broker: Broker | None) -> Run:
    """Runs services for a test: `async with eventkit_run(orders, shipping) as t`.

    In memory, with a virtual clock, as `eventkit.testing.run`; with `--eventkit-broker` on that broker.
    """

    def start(
        *services: Service, serializer: Serializer = JSON_SERIALIZER, overrides: Overrides | None = None
    ) -> AbstractAsyncContextManager[Harness]:
        if eventkit_broker is None:
            return run(*services, serializer=serializer, overrides=overrides)
        return run_on(eventkit_broker, *services, serializer=serializer, overrides=overrides)

    return start


def _wanted(config: pytest.Config) -> str:
    name = str(config.getoption("--eventkit-broker") or config.getini("eventkit_broker"))
    if name not in (_MEMORY, *NAMES):
        raise pytest.UsageError(f"eventkit_broker = {name}: it is one of {', '.join((_MEMORY, *NAMES))}")
    return name
