"""Gaps: what a stream dropped, by age or size, before a group had read it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from nats.errors import Error

from eventkit.errors import NotProvisioned
from eventkit_nats.exchange import Exchange
from eventkit_nats.pull import Pull
from eventkit_nats.topology import Topology

log = logging.getLogger("eventkit.nats")

_LOOK: Final = 5.0
"""Seconds between two looks."""
_PATIENCE: Final = 2.0
"""Seconds to wait for an answer: who may not ask gets none."""


class _Seen(NamedTuple):
    """How far a durable has come."""

    deliveries: int
    """Redeliveries counted."""
    sequence: int
    """In the stream, of the last message that it gave to anyone."""


class Gaps:
    """Looks at the topics of a group, before the first is read and then every few seconds, and says what is missing.

    JetStream itself jumps over what is gone without a word. Between two looks a durable that skips nothing comes as
    many sequences further as it makes deliveries, or fewer where it delivers again: more are a gap.
    """

    def __init__(self, exchange: Exchange, topology: Topology, group: str, pulls: Sequence[Pull]) -> None:
        self._exchange = exchange
        self._topology = topology
        self._group = group
        self._pulls = [pull for pull in pulls if pull.address.kind == "topic"]
        self._seen: dict[Pull, _Seen] = {}

    async def look(self) -> None:
        """Now, as far as the server lets us and answers."""
        try:
            for pull in self._pulls:
                info = await self._topology.consumer(pull.place, pull.durable, _PATIENCE)
                delivered, pull.floor = info["delivered"], info["ack_floor"]["stream_seq"]
                if pull.place.filter is not None:
                    continue  # others share the stream: we read some subjects only, and its sequences are no measure
                stream = await self._exchange.api(f"STREAM.INFO.{pull.place.stream}", timeout=_PATIENCE)
                self._compare(
                    pull, _Seen(delivered["consumer_seq"], delivered["stream_seq"]), stream["state"]["first_seq"]
                )
        except (Error, OSError, TimeoutError, NotProvisioned) as error:
            log.debug("NATS: group %s could not look for gaps: %s", self._group, error)

    async def watch(self) -> None:
        """Until it is cancelled."""
        while self._pulls:
            await asyncio.sleep(_LOOK)
            await self.look()

    def _compare(self, pull: Pull, now: _Seen, first: int) -> None:
        before = self._seen.get(pull, now)
        if now.sequence < before.sequence or now.deliveries < before.deliveries:
            before = now  # it was made again
        skipped = (now.sequence - before.sequence) - (now.deliveries - before.deliveries)
        if skipped > 0:
            self._say(pull, skipped, before.sequence + 1, now.sequence)
        ahead = first - 1 - now.sequence
        if ahead > 0:
            self._say(pull, ahead, now.sequence + 1, first - 1)
        self._seen[pull] = _Seen(now.deliveries, max(now.sequence, first - 1))

    def _say(self, pull: Pull, count: int, since: int, until: int) -> None:
        log.error(
            "NATS: group %s lost %d messages of %s (stream %s): dropped by its limits before they were read, between "
            "sequence %d and %d. Raise EVENTKIT_NATS__TOPIC_AGE or __TOPIC_BYTES, or run more replicas.",
            *(self._group, count, pull.address, pull.place.stream, since, until),
        )
