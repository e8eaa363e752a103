"""The log that programs read: one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from eventkit.log import write_to

__all__ = ["JsonFormatter", "to_json"]

_RECORD = {*vars(logging.makeLogRecord({})), "message", "asctime"}
"""What each record has: all else was given by whoever logged, with `extra=`."""


class JsonFormatter(logging.Formatter):
    """`time` (RFC 3339, UTC), `level`, `logger`, `message`, then what the record was given with `extra=`.

    Records of eventkit about a message have `service`, `group`, `message_id`, `message_type`, `message_key`,
    `correlation_id`, `attempt`, and `duration_ms` where a handler has run. An exception is in `exception`, as one text
    with its stack. Payloads are never in them. ASCII alone, so that nothing in a line ends it.
    """

    def __init__(self, *, worker: int | None = None) -> None:
        """`worker`: the number of this process among those of `eventkit run --workers`; 0 is the one that watches."""
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self._worker is not None:
            line["worker"] = self._worker
        given = {name: value for name, value in vars(record).items() if name not in _RECORD and value is not None}
        line |= {name: value for name, value in given.items() if name not in line}
        line["process"] = record.process
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        try:
            return json.dumps(line, default=str, allow_nan=False)
        except (TypeError, ValueError, RecursionError):  # not a number, a key that is no text, a circle
            plain = {name: value if _is_plain(value) else repr(value) for name, value in line.items()}
            return json.dumps(plain)


def to_json(level: str = "INFO", stream: TextIO | None = None, *, worker: int | None = None) -> None:
    """Send all records of this process to `stream` (None: standard error) in this form. Twice is harmless."""
    write_to(sys.stderr if stream is None else stream, JsonFormatter(worker=worker), level)


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int) or value is None
