"""The brokers under test: each provided once a run, the first way that works; and the ledger at the run's end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # so that tests can import `tests.backends` and their like
pytest.register_assert_rewrite("eventkit.contract")  # so that its assertions show what they compared

from eventkit.contract import CHECKS, Backend  # noqa: E402
from eventkit.testing.brokers import Broker, BrokerUnavailable  # noqa: E402
from tests import loop, parallel  # noqa: E402
from tests.backends import ALL, Brokers, Memory, Real  # noqa: E402
from tests.breakable import Breakable  # noqa: E402
from tests.ledger import Ledger  # noqa: E402
from tests.wanted import wanted  # noqa: E402

_LEDGER = pytest.StashKey[Ledger]()
_BROKERS = pytest.StashKey[Brokers]()
_FAMILIES = "DROFLMHWVSBQC"
_SENTENCES = {
    name: CHECKS[name].sentence for name in sorted(CHECKS, key=lambda name: (_FAMILIES.find(name[0]), int(name[1:])))
}
"""By behaviour, in the order of docs/guarantees."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        action="append",
        choices=ALL,
        help="run the contract on this backend only; may be repeated (EVENTKIT_TEST_BACKENDS=redis,nats does the same)",
    )


def pytest_configure(config: pytest.Config) -> None:
    loop.install()
    ledger, brokers = Ledger(), Brokers()
    config.stash[_LEDGER] = ledger
    config.stash[_BROKERS] = brokers
    if config.getoption("numprocesses", None) and not parallel.is_worker(config):
        config.pluginmanager.register(parallel.Front(brokers, ledger))


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_BROKERS].stop()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each check on each backend, one backend after the other: the last ones take longest to start."""
    if "check_on" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("checks")
        checks = _SENTENCES if only is None else only.args
        cells = [(check, name) for name in wanted(metafunc.config) for check in checks]
        metafunc.parametrize("check_on", cells, ids=["-".join(cell) for cell in cells])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if parallel.is_worker(config):
        parallel.put_longest_first(items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if parallel.is_worker(session.config):
        parallel.hand_in(session.config, session.config.stash[_LEDGER])


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    cells = [item.callspec.params.get("check_on") for item in session.items if hasattr(item, "callspec")]
    session.config.stash[_BROKERS].ask(*dict.fromkeys(name for _, name in filter(None, cells) if name != "memory"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    ledger = config.stash[_LEDGER]
    if ledger.results:
        file = ROOT / "build" / "ledger.json"
        ledger.write(file)
        terminalreporter.section(f"the contract: {file.relative_to(ROOT)}")
        for line in ledger.lines(_SENTENCES, ALL):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def broker(pytestconfig: pytest.Config) -> Callable[[str], Broker]:
    """Gives a real broker by name. One that cannot be had skips on a laptop and fails under CI."""

    def give(name: str) -> Broker:
        try:
            return pytestconfig.stash[_BROKERS].get(name)
        except BrokerUnavailable as error:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))

    return give


@pytest.fixture(scope="session")
def breakable(pytestconfig: pytest.Config, broker: Callable[[str], Broker]) -> Callable[[str], Breakable]:
    """Gives a broker of its own that a test may kill, cut off or rob, by name."""

    def give(name: str) -> Breakable:
        broker(name)  # skips, where there is none
        others = [name] if parallel.is_worker(pytestconfig) else wanted(pytestconfig)
        pytestconfig.stash[_BROKERS].ask_breakable(*(other for other in others if other != "memory"))
        try:
            return pytestconfig.stash[_BROKERS].breakable(name)
        except BrokerUnavailable as error:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))

    return give


@pytest.fixture(scope="session")
def backend(
    broker: Callable[[str], Broker], breakable: Callable[[str], Breakable], ledger: Ledger
) -> Callable[[str], Backend]:
    """Gives a backend of the contract by name."""

    def give(name: str) -> Backend:
        if name == "memory":
            ledger.found(name, f"eventkit {version('faststream-eventkit')}", "in this process")
            return Memory()
        found = broker(name)
        ledger.found(name, found.version, found.how)
        return Real(name, found.url, lambda: breakable(name))

    return give


@pytest.fixture(scope="session")
def ledger(pytestconfig: pytest.Config) -> Ledger:
    """What the tests of the contract write down."""
    return pytestconfig.stash[_LEDGER]
