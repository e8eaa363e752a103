"""A database for each test; one PostgreSQL for all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from eventkit.testing.brokers import BrokerUnavailable, provide
from tests.once.databases import KINDS, Database, fresh
from tests.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """Gives the server's address. One that cannot be had skips on a laptop and fails under CI."""
    started = []

    @cache
    def give() -> str:
        try:
            started.append(provide(Postgres()))
        except BrokerUnavailable as error:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
        return started[0].url

    yield give
    for server in started:
        server.stop()


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path, postgres: Callable[[], str]) -> Database:
    kind = request.param
    return fresh(kind, tmp_path, postgres() if kind == "postgres" else None)
