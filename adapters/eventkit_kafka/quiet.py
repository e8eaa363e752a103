"""aiokafka's log, made fit to be read.

While a broker is away aiokafka says so sixty times a second; and it warns of each member that joins or leaves a group,
which is how groups work, and of each topic that is looked for. Each thing is let through once in a while, the latter
two not at all. Errors reach the caller in any case, and what matters to an operator stands in our own log.
"""

from __future__ import annotations

import logging
import time

_AGAIN = 30.0
"""Seconds until the same thing is said again."""
_LOGGERS = (
    "aiokafka",
    "aiokafka.cluster",
    "aiokafka.conn",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.producer.sender",
)
_LOGIN = "sasl_auth_bytes"
"""At DEBUG aiokafka writes down each request: the one that logs in as well, with the password."""
_USUAL = (
    "because it is rebalancing",
    "not found in cluster metadata",  # a topic that is looked for before it is made; where it is to be there, we raise
    "not available during auto-create",  # and that was made a moment ago
)


class _Quiet(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return record.levelno > logging.DEBUG or _LOGIN not in record.getMessage()
        text = str(record.msg)
        if any(part in text for part in _USUAL):
            return False
        now = time.monotonic()
        said = (record.name, text)
        if now - self._said.get(said, -_AGAIN) < _AGAIN:
            return False
        self._said[said] = now
        return True


_QUIET = _Quiet()


def quiet() -> None:
    """Once is enough, more often is harmless."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_QUIET)
