"""Secured brokers, each started once; and the watch over secrets."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterator

import pytest

from eventkit.contract.checks import fresh_namespace
from eventkit.testing.brokers import BrokerUnavailable
from tests.security.servers import SECURED, Papers, Secured
from tests.wanted import wanted

Give = Callable[[str], Secured]


class Watch:
    """What was said by anybody, and what must not be in it."""

    def __init__(self) -> None:
        self.secrets: set[str] = set()
        self.said: list[str] = []

    def error(self, error: BaseException) -> None:
        """An error as a log would show it, with all that caused it."""
        self.said += ["".join(traceback.format_exception(error)), str(error), repr(error)]

    def text(self, *things: object) -> None:
        for thing in things:
            self.said += [str(thing), repr(thing)]


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="session")
def secured(papers: Papers, pytestconfig: pytest.Config) -> Iterator[Give]:
    found: dict[str, Secured] = {}

    def give(name: str) -> Secured:
        if name not in wanted(pytestconfig):
            pytest.skip(f"{name} is not asked for")
        if name not in found:
            try:
                found[name] = SECURED[name](papers)
            except BrokerUnavailable as error:
                (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
        return found[name]

    yield give
    for one in found.values():
        one.broker.stop()


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Makes this the environment, with a namespace of its own."""

    def put(environment: dict[str, str]) -> None:
        for name in [name for name in os.environ if name.startswith("EVENTKIT_")]:
            monkeypatch.delenv(name)
        for name, value in {**environment, "EVENTKIT_NAMESPACE": fresh_namespace()}.items():
            monkeypatch.setenv(name, value)

    return put


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture(autouse=True)
def watch(papers: Papers, capfd: pytest.CaptureFixture[str]) -> Iterator[Watch]:
    """Fails a test in which a secret was said anywhere: in a log of any library at any level, on the console, in an
    error or its causes, or in what the test itself has added."""
    found = Watch()
    found.secrets.add(papers.secret)
    root, kept = logging.getLogger(), _Kept()
    level = root.level
    root.addHandler(kept)
    root.setLevel(logging.DEBUG)
    try:
        yield found
    finally:
        root.removeHandler(kept)
        root.setLevel(level)
    console = capfd.readouterr()
    said = [*found.said, console.out, console.err, *kept.lines]
    leaks = [line for text in said for line in text.splitlines() if any(secret in line for secret in found.secrets)]
    assert not leaks, f"a secret was said: {leaks[:3]}"
    assert kept.lines, "nothing was logged: nothing was watched"
