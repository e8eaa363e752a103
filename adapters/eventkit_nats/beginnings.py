"""Where groups begin: in each topic once as they are told to, and never anew.

How far a group has come is kept in its durable, which anyone may delete, and which goes with its stream. So it stands
in the metadata of the group's dead letters what it has begun to read. Where that is noted and the durable is missing
at a start, the topic is read from the oldest message on: repeats, rather than a loss.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any, Final

from nats.errors import Error

from eventkit_nats.exchange import Exchange

log = logging.getLogger("eventkit.nats")

_NOTE: Final = "ek-begun."
"""Begins the name of a note, which goes on with a stream and a durable. Servers before 2.10 keep none."""
_PATIENCE: Final = 2.0
"""Seconds that writing a note may take: who may not do it gets no answer."""


class Beginnings:
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def noted(self, dead: str) -> set[str]:
        """The `stream.durable` that the group with these dead letters has begun with."""
        metadata = (await self._config(dead)).get("metadata") or {}
        return {name.removeprefix(_NOTE) for name in metadata if name.startswith(_NOTE)}

    async def note(self, dead: str, begun: Collection[str]) -> None:
        """From now on it has begun with these, too."""
        try:
            config = await self._config(dead)
            metadata: dict[str, str] = config.get("metadata") or {}
            more = {f"{_NOTE}{name}": "" for name in begun} | metadata
            if len(more) > len(metadata):
                await self._exchange.api(f"STREAM.UPDATE.{dead}", {**config, "metadata": more}, timeout=_PATIENCE)
        except (Error, TimeoutError) as error:
            log.debug("NATS: it could not be noted among %s what its group reads: %s", dead, error)

    async def _config(self, stream: str) -> dict[str, Any]:
        config: dict[str, Any] = (await self._exchange.api(f"STREAM.INFO.{stream}"))["config"]
        return config


def say(group: str, stream: str) -> None:
    """It begins anew."""
    log.error(
        "NATS: group %s had begun to read the stream %s, and its consumer there is gone (deleted, or the stream was "
        "made anew): it reads all that is kept there. What it had handled comes again.",
        *(group, stream),
    )
