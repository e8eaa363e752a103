"""Writing down how far a group has come, off the way of everything else.

A commit costs the broker milliseconds, and hangs while the broker is away: it is never waited for where messages pass.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Protocol

from aiokafka import TopicPartition  # type: ignore[import-untyped]
from aiokafka.errors import (  # type: ignore[import-untyped]
    CommitFailedError,
    IllegalStateError,
    OffsetMetadataTooLargeError,
)
from aiokafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]

from eventkit.cancelling import unbroken
from eventkit_kafka.progress import METADATA, Tracker

log = logging.getLogger("eventkit.kafka")

_HURRY, _HURRY_EACH = 2_000, 40
"""So many changes are committed before the interval is over: in all, and for each partition, since each costs."""
_TIMEOUT = 10.0
_COST = 2.5e-6
"""Seconds of interval for each offset that is pending: writing its mark down then takes a fiftieth of the time."""


class Member(Protocol):
    """What is committed, and through what."""

    consumer: Any
    trackers: dict[TopicPartition, Tracker]


class Commits:
    """Of one group's partitions that this process reads."""

    def __init__(self, group: str, member: Member, interval: float) -> None:
        self._group = group
        self._member = member
        self._interval = interval
        self._dirty = asyncio.Event()
        self._hurry = asyncio.Event()
        self._changes = 0
        self._many = _HURRY
        self._room = METADATA
        self._under_way = 0
        self._ended = asyncio.Event()

    def touched(self) -> None:
        """Something was read or settled."""
        self._changes += 1
        if self._changes == 1:
            self._dirty.set()
        elif self._changes == self._many:
            self._hurry.set()

    async def regularly(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._dirty.wait()
            try:
                async with asyncio.timeout(self._interval):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._dirty.clear()
            self._hurry.clear()
            self._changes = 0
            self._many = max(_HURRY, _HURRY_EACH * len(self._member.trackers))
            now = loop.time()
            touched = [tracker for tracker in self._member.trackers.values() if tracker.touched and tracker.open]
            ripe = [tracker for tracker in touched if now - tracker.written >= len(tracker.pending) * _COST]
            if not await self.commit(ripe, _TIMEOUT) or len(ripe) < len(touched):
                self.touched()

    async def commit(self, trackers: Iterable[Tracker], seconds: float) -> bool:
        """False: it failed, and is worth another try."""
        now = asyncio.get_running_loop().time()
        marks: dict[TopicPartition, OffsetAndMetadata] = {}
        # of one that was given up nothing is pending any more, settled or not: its mark would say that all is settled
        ours = self._member.trackers
        touched = [tracker for tracker in trackers if tracker.touched and ours.get(tracker.tp) is tracker]
        for tracker in touched:
            tracker.touched = False
            tracker.written = now
            mark = tracker.mark(self._room)
            if mark is not None:
                marks[tracker.tp] = OffsetAndMetadata(*mark)
        if not marks:
            return True
        self._under_way += 1
        try:
            async with asyncio.timeout(seconds):
                await unbroken(self._member.consumer.commit(marks))
        except (CommitFailedError, IllegalStateError) as error:
            # The partitions are somebody else's by now: where he goes on was told by an earlier commit.
            log.debug("group %s: too late to commit: %r", self._group, error)
        except Exception as error:  # noqa: BLE001 whatever aiokafka raises: who commits regularly must not end of it
            if isinstance(error, OffsetMetadataTooLargeError):
                self._room = 0
            for tracker in touched:
                tracker.touched = True
            log.debug("group %s: could not commit: %r", self._group, error)
            return False
        finally:
            self._under_way -= 1
            self._ended.set()
        return True

    async def ended(self, seconds: float) -> None:
        """Until none is under way: what one says that fails is to be said again. TimeoutError after so long."""
        async with asyncio.timeout(seconds):
            while self._under_way:
                self._ended.clear()
                await self._ended.wait()
