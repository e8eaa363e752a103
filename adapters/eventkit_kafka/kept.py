"""What topics that are there keep, though the settings ask for something else."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from eventkit.adapter import Address
from eventkit_kafka.settings import KafkaSettings
from eventkit_kafka.topics import Topics

log = logging.getLogger("eventkit.kafka")


class Kept:
    """Says it, once for each topic: an operator changes them, since it moves data or what keys wait behind."""

    def __init__(self, topics: Topics, settings: KafkaSettings) -> None:
        self._topics = topics
        self._settings = settings
        self._compared: set[str] = set()

    async def compare(self, there: Mapping[str, Address]) -> None:
        """Topics of ours that exist."""
        ours = {
            topic: address
            for topic, address in there.items()
            if address.physical is None and topic not in self._compared
        }
        self._compared.update(ours)
        settings = self._settings
        if settings.partitions is not None:
            found = await self._topics.partitions([t for t, one in ours.items() if one.kind in ("topic", "inbox")])
            _say(
                "partitions",
                settings.partitions,
                {topic: len(partitions) for topic, partitions in found.items()},
                "more would move keys to other partitions, past what waits for them there (kafka-topics --alter adds "
                "them)",
            )
        if settings.replication is not None:
            replicas = await self._topics.replicas(ours)
            _say("replication", settings.replication, replicas, "kafka-reassign-partitions adds replicas")
        if settings.min_insync_replicas is not None:
            least = await self._topics.min_insync_replicas(ours)
            mend = f"kafka-configs --alter --add-config min.insync.replicas={settings.min_insync_replicas} changes it"
            _say("min_insync_replicas", settings.min_insync_replicas, least, mend)


def _say(setting: str, wanted: int, found: Mapping[str, int], why: str) -> None:
    if other := sorted(f"{topic} has {has}" for topic, has in found.items() if has != wanted):
        log.warning(
            "%s=%d is for topics that are created; %s, and keeps it: %s", setting, wanted, ", ".join(other), why
        )
