"""What the memory broker keeps, used by several threads at once, as `eventkit.blocking` does."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from eventkit.adapter import DONE, Address, Connection, Group, Message, Provision
from eventkit.contract.receiving import receive
from eventkit.memory import MemoryAdapter, Store
from eventkit.memory.store import Queue, Stored

_MESSAGE = Message(Address("topic", "orders"), "OrderPlaced", None, {}, b"{}")


@pytest.fixture
def _restless() -> Iterator[None]:
    """Threads that take turns much more often than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_restless")
def test_what_is_given_back_while_another_thread_publishes_is_kept_in_its_place() -> None:
    queue = Queue()
    published, given_back = 20_000, 200
    for number in range(given_back, given_back + 2_000):
        queue.put(Stored(_MESSAGE, 2 * number))

    def publish() -> None:
        for number in range(published):
            queue.put(Stored(_MESSAGE, 1_000_000 + number))

    other = threading.Thread(target=publish)
    other.start()
    for number in range(given_back):
        queue.put_back(Stored(_MESSAGE, 2 * (given_back + 1_500 + number) + 1))
    other.join()
    numbers = [stored.number for stored in queue.ready]
    assert len(numbers) == 2_000 + published + given_back
    assert numbers == sorted(numbers)


def test_what_is_not_due_yet_outlives_the_loop_that_it_was_put_there_from() -> None:
    store, group = Store(), Group("shipping", ())
    due = datetime.now(UTC) + timedelta(seconds=0.2)

    async def put() -> None:
        adapter = MemoryAdapter(Connection(None, "", "test"), store=store)
        await adapter.start(1.0)
        await adapter.provision([group], Provision.CREATE)
        assert await adapter.publish([_MESSAGE._replace(address=group.retry, due=due)]) == [None]
        await adapter.stop(1.0)

    async def take() -> None:
        adapter = MemoryAdapter(Connection(None, "", "test"), store=store)
        await adapter.start(1.0)
        got = await receive(adapter, group, settle_with=DONE)
        await got.arrive(1, within=5.0)
        assert datetime.now(UTC) >= due
        assert (await adapter.measure(group)).delayed == 0
        await adapter.stop(1.0)

    asyncio.run(put())
    asyncio.run(take())
