"""The checks themselves: each of these adapters breaks one promise, and the checks of that promise fail."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from eventkit.adapter import Adapter, Connection
from eventkit.contract import CHECKS, Backend, checks, groups, letters
from eventkit.contract.checks import Faults
from eventkit.memory import Store
from tests.contract import broken_border, broken_groups, broken_letters, broken_routing
from tests.contract.broken import Broken, Slow

PATIENCE = 0.7
"""Seconds that a check waits here for what will not come."""


@dataclass
class _Backend:
    make: type[Broken]
    name: str = "memory"
    store: Store = field(default_factory=Store)

    def adapter(self, namespace: str, /) -> Adapter:
        return self.make(Connection(url=None, namespace=namespace, client="contract"), store=self.store)

    def unreachable(self, namespace: str, /) -> Adapter | None:
        return None

    def faults(self) -> Faults | None:
        return None


assert broken_border
assert broken_groups
assert broken_letters
assert broken_routing  # their classes register themselves by being derived
BROKEN = [cls for cls in Broken.__subclasses__() if cls.faults]


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.eventually, "__defaults__", (PATIENCE,))
    monkeypatch.setattr(letters.dead_letters, "__defaults__", (PATIENCE,))
    monkeypatch.setattr(groups._until, "__defaults__", (PATIENCE,))
    monkeypatch.setattr(letters.listed, "__defaults__", (PATIENCE,))


@pytest.mark.parametrize(
    ("broken", "check"), [pytest.param(cls, id_, id=f"{id_}-{cls.__name__}") for cls in BROKEN for id_ in cls.faults]
)
@pytest.mark.usefixtures("_impatient")
def test_a_broken_adapter_fails(broken: type[Broken], check: str) -> None:
    with pytest.raises(Exception) as caught:
        asyncio.run(_run(check, _Backend(broken)))
    assert not isinstance(caught.value, TypeError | AttributeError | NameError | TimeoutError), repr(caught.value)


@pytest.mark.parametrize("check", ["D3", "D5", "D7", "O1", "O2", "L2"])
def test_a_slow_adapter_passes(check: str) -> None:
    asyncio.run(_run(check, _Backend(Slow)))


async def _run(check: str, backend: Backend) -> None:
    async with asyncio.timeout(60):
        await CHECKS[check].run(backend)
