"""The whole suite in several processes: most tests wait for a broker, so that one core has time for several.

pytest-xdist runs them. The process at the front provides the brokers for all, and gathers the ledger.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import pytest
from xdist.scheduler import LoadScopeScheduling

from eventkit.testing.brokers import NAMES, Broker, BrokerUnavailable
from eventkit.testing.brokers.__main__ import variables
from tests.backends import Brokers
from tests.ledger import Ledger
from tests.wanted import wanted

_CONTRACT = "tests/contract/test_contract.py"
_LONGEST = (
    "contract kafka",
    "contract rabbit",
    "tests/adapters/test_kafka.py",
    "tests/rig/test_rig.py",
    "contract nats",
    "contract redis",
)
"""What runs first, so that no process is left alone with it at the end."""
_SHARING = ("tests/asyncapi", "tests/faults", "tests/once", "tests/security", "tests/web")
"""Folders whose files share what is made once a run, such as servers with certificates, or what npm has installed."""


class Worker(Protocol):
    """What xdist's WorkerController and a worker's config have, as far as it is used here."""

    workeroutput: dict[str, Any]


def is_worker(config: pytest.Config) -> bool:
    """Is this one of several processes, and not the one at the front?"""
    return hasattr(config, "workerinput")


def hand_in(config: Any, ledger: Ledger) -> None:
    """What this worker found goes to the process at the front."""
    config.workeroutput["ledger"] = ledger.packed()


class Front:
    """The process that has the others run the tests."""

    def __init__(self, brokers: Brokers, ledger: Ledger) -> None:
        self._brokers = brokers
        self._ledger = ledger

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Before the workers are started, which take over our environment."""
        if session.config.option.collectonly:
            return
        names = [name for name in NAMES if name in wanted(session.config)]
        with ThreadPoolExecutor(max_workers=len(NAMES)) as pool:
            found = [broker for broker in pool.map(self._provided, names) if broker is not None]
        os.environ.update(variables(found))

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> object:
        return _Groups(config, log)

    def pytest_testnodedown(self, node: Worker, error: object) -> None:
        """A worker has ended; one that died handed in nothing, and its tests have failed."""
        packed = getattr(node, "workeroutput", {}).get("ledger")
        if packed is not None:
            self._ledger.unpack(packed)

    def _provided(self, name: str) -> Broker | None:
        try:
            broker = self._brokers.get(name)
        except BrokerUnavailable:
            return None  # each test that asks for it says so
        self._ledger.found(name, broker.version, broker.how)
        return broker


def put_longest_first(items: list[pytest.Item]) -> None:
    """In every process alike."""
    order = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(_group(item.nodeid), len(order)))


class _Groups(LoadScopeScheduling):  # type: ignore[misc]
    """The tests of one file, or folder, run in one process, since they share servers of their own; the contract's are
    one group for each backend."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid)


def _group(nodeid: str) -> str:
    file, _, test = nodeid.partition("::")
    if file == _CONTRACT:
        return f"contract {test.rstrip(']').rpartition('-')[2]}"
    return next((folder for folder in _SHARING if file.startswith(f"{folder}/")), file)
