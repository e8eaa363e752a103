"""Saying what of a partition is not there any more: dropped before it was read, or cut off."""

from __future__ import annotations

import asyncio
import logging
import time

from aiokafka import TopicPartition  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]

from eventkit_kafka.topics import Topics

log = logging.getLogger("eventkit.kafka")

_LOOK_UP = 10.0
_LOOK_AGAIN = 10.0


class Gaps:
    """Of one group, each once."""

    def __init__(self, group: str, topics: Topics) -> None:
        self._group = group
        self._topics = topics
        self._looked = -_LOOK_AGAIN
        self._looking: set[asyncio.Task[None]] = set()
        self._told: dict[TopicPartition, int] = {}
        """Up to which offset gaps were told."""

    def jumped(self, tp: TopicPartition, wanted: int) -> None:
        """Offsets are missing. They may be none of ours, such as marks of transactions; or retention overtook us."""
        now = time.monotonic()
        if now - self._looked > _LOOK_AGAIN:
            self._looked = now
            task = asyncio.get_running_loop().create_task(self._look(tp, wanted))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

    async def _look(self, tp: TopicPartition, wanted: int) -> None:
        try:
            async with asyncio.timeout(_LOOK_UP):
                begin = (await self._topics.begins([tp]))[tp]
        except (TimeoutError, OSError, KafkaError):
            return
        self.say(tp, wanted, begin)

    def say(self, tp: TopicPartition, wanted: int, begin: int) -> None:
        """Unless it was said before."""
        wanted = max(wanted, self._told.get(tp, 0))
        if begin <= wanted:
            return
        self._told[tp] = begin
        log.error(
            "group %s: %d messages of topic %s, partition %d (offsets %d to %d) were dropped by Kafka's retention "
            "before they were read. Raise the topic's retention.ms or retention.bytes, or run more replicas.",
            self._group,
            begin - wanted,
            tp.topic,
            tp.partition,
            wanted,
            begin - 1,
        )

    def cut_off(self, tp: TopicPartition, wanted: int, begin: int) -> None:
        """It ends before that, and is another log from now on."""
        self._told.pop(tp, None)
        log.error(
            "group %s: topic %s, partition %d ends before offset %d, where it was to be read on: it was made anew, or "
            "cut off when a broker that was behind became its leader. It is read from its beginning, offset %d: what "
            "was handled before comes again.",
            self._group,
            tp.topic,
            tp.partition,
            wanted,
            begin,
        )
