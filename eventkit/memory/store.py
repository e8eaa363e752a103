"""What the memory broker keeps: topics, what waits for each group, and dead letters."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from eventkit.adapter import Delivery, Message

_PASSED_BY = 10_000
"""Messages of other consumers' keys that are passed by in search of one's own."""


class Stored:
    """One message in one group's queue."""

    __slots__ = ("deliveries", "message", "number", "position")

    def __init__(self, message: Message, number: int) -> None:
        self.message = message
        self.number = number
        """Its place in the order of publishing."""
        self.position = f"{number}"
        self.deliveries = 0


class Reader(Protocol):
    """One of those who take from a queue."""

    held: dict[int, Stored]
    keys: dict[str, int]
    """Of what is held, and how many of each."""

    def wake(self) -> None:
        """There may be something to take. Called from any thread's loop."""


class Queue:
    """What waits for one group."""

    def __init__(self) -> None:
        self.ready: deque[Stored] = deque()
        self._late: dict[int, Stored] = {}
        self.consumers: list[Reader] = []
        self._changing = threading.Lock()

    def take(self, consumer: Reader, most: int) -> list[Stored]:
        """The next for this consumer. Each key belongs to one of several, once no other has any of it in hand."""
        with self._changing:
            many = len(self.consumers)
            others = [other.keys for other in self.consumers if other is not consumer]
            taken: list[Stored] = []
            passed: list[Stored] = []
            ready, keys = self.ready, consumer.keys
            while ready and len(taken) < most and len(passed) < _PASSED_BY:
                stored = ready.popleft()
                key = stored.message.key
                if key is not None:
                    if many > 1 and (
                        self.consumers[hash(key) % many] is not consumer or any(key in held for held in others)
                    ):
                        passed.append(stored)
                        continue
                    keys[key] = keys.get(key, 0) + 1
                taken.append(stored)
            ready.extendleft(reversed(passed))
        return taken

    def join(self, consumer: Reader) -> None:
        with self._changing:
            self.consumers.append(consumer)
        self.wake()

    def leave(self, consumer: Reader) -> None:
        with self._changing:
            self.consumers.remove(consumer)
            consumer.keys.clear()
        self.wake()

    def put(self, stored: Stored) -> None:
        with self._changing:  # a thread that looks for a place in it must not see it change
            self.ready.append(stored)
        self.wake()

    @property
    def late(self) -> Sequence[Stored]:
        """What is not due yet."""
        return list(self._late.values())

    def wait(self, stored: Stored) -> None:
        """It is not due yet."""
        self._late[stored.number] = stored

    def ripen(self, stored: Stored) -> None:
        """It is due; once is enough."""
        if self._late.pop(stored.number, None) is not None:
            self.put(stored)

    def put_back(self, stored: Stored) -> None:
        """Before all that was published later."""
        with self._changing:
            place = 0
            for other in self.ready:
                if other.number > stored.number:
                    break
                place += 1
            self.ready.insert(place, stored)
        self.wake()

    def wake(self) -> None:
        for consumer in self.consumers:
            consumer.wake()


class Store:
    """Topics, groups and dead letters. One a process, unless a test makes its own."""

    def __init__(self) -> None:
        self.topics: dict[str, deque[Stored]] = {}
        self.subscribers: dict[str, list[Queue]] = {}
        """By channel: those that get what is put there."""
        self.queues: dict[str, Queue] = {}
        self.dead: dict[str, dict[str, Message]] = {}
        self.followers: dict[str, list[asyncio.Queue[Delivery]]] = {}
        self.count = itertools.count(1)

    def idle(self) -> bool:
        """Is there nothing to deliver, and nothing that is being handled?"""
        return not any(q.ready or any(c.held for c in q.consumers) for q in self.queues.values())
