"""What the memory broker keeps, used by several threads at once, as `eventkit.blocking` does."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from eventkit.adapter import Address, Message
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
