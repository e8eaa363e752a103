"""The checks of what is foreign or grows old: each of these backends breaks one promise, and its check fails."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from eventkit.adapter import Adapter, Address, Connection, Message
from eventkit.contract import CHECKS, checks, letters
from eventkit.contract.checks import Faults
from eventkit.memory import MemoryAdapter, Store

PATIENCE = 0.7
"""Seconds that a check waits here for what will not come."""


@dataclass
class Backend:
    """Memory that can grow old and be written to by others; right in all."""

    name: str = "memory"
    store: Store = field(default_factory=Store)
    no_text: Mapping[str, object] = field(default_factory=lambda: {"x-number": 7, "x-null": None, "x-bytes": b"\xff"})

    def adapter(self, namespace: str, /) -> Adapter:
        return MemoryAdapter(Connection(url=None, namespace=namespace, client="contract"), store=self.store)

    def unreachable(self, namespace: str, /) -> Adapter | None:
        return None

    def faults(self) -> Faults | None:
        return None

    def next_release(self, namespace: str, /) -> Adapter:
        return self.adapter(namespace)

    def grow(self, namespace: str, topic: str, /) -> None:
        """A topic has no partitions."""

    def forget(self, namespace: str, topic: str, /) -> None:
        for queue in self.store.queues.values():
            queue.ready.clear()
        logging.getLogger("broken").error("what sleeper had not read of %s was dropped", topic)

    def put(self, namespace: str, topic: str, body: bytes, headers: Mapping[str, object], /) -> None:
        kept = {name: str(value) for name, value in headers.items() if isinstance(value, str | int)}
        for queue in self.store.subscribers[f"{namespace}.{topic}"]:
            message = Message(Address("topic", topic), "", None, self.read(headers, kept), body)
            self.hand(queue, message)

    def read(self, headers: Mapping[str, object], kept: Mapping[str, str]) -> Mapping[str, str]:
        return kept

    def hand(self, queue: object, message: Message) -> None:
        from eventkit.memory.store import Queue, Stored

        assert isinstance(queue, Queue)
        queue.put(Stored(message, f"foreign {next(self.store.count)}"))


class LeavesHeadersAsTheyCame(Backend):
    """A number that is no text among them."""

    def read(self, headers: Mapping[str, object], kept: Mapping[str, str]) -> Mapping[str, str]:
        return {**kept, "x-null": ""}


class LosesTheOthersRetries(Backend):
    """What the next release puts off is lost."""

    def next_release(self, namespace: str, /) -> Adapter:
        class Loses(MemoryAdapter):
            def _put(self, message: Message) -> Exception | None:
                return None if message.address.kind == "retry" else super()._put(message)

        return Loses(Connection(url=None, namespace=namespace, client="next"), store=self.store)


class LosesWhatIsNew(Backend):
    """What comes to a topic after it has grown is lost, now and then."""

    def grow(self, namespace: str, topic: str, /) -> None:
        every = itertools.count()
        for queue in self.store.subscribers[f"{namespace}.{topic}"]:
            put = queue.put

            def loses(stored: object, put: Callable[..., None] = put) -> None:
                if next(every) % 20:
                    put(stored)

            queue.put = loses  # type: ignore[method-assign, assignment]


class JumpsQuietly(Backend):
    def forget(self, namespace: str, topic: str, /) -> None:
        for queue in self.store.queues.values():
            queue.ready.clear()


CASES = [("W3", LeavesHeadersAsTheyCame), ("V1", LosesTheOthersRetries), ("V2", LosesWhatIsNew), ("V3", JumpsQuietly)]


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.eventually, "__defaults__", (PATIENCE,))
    monkeypatch.setattr(letters.dead_letters, "__defaults__", (PATIENCE,))


@pytest.mark.parametrize(("check", "made"), CASES, ids=[f"{check}-{made.__name__}" for check, made in CASES])
@pytest.mark.usefixtures("_impatient")
def test_a_backend_that_breaks_it_fails(check: str, made: type[Backend]) -> None:
    with pytest.raises(AssertionError):
        asyncio.run(_run(check, made()))


@pytest.mark.parametrize("check", sorted({check for check, _ in CASES}))
def test_one_that_does_not_passes(check: str) -> None:
    asyncio.run(_run(check, Backend()))


async def _run(check: str, backend: Backend) -> None:
    async with asyncio.timeout(60):
        await CHECKS[check].run(backend)
