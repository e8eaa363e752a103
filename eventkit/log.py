"""The log that people read at a terminal: one line an event, in columns."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import zlib
from typing import TextIO

from eventkit.log_fields import LogFields

__all__ = ["ConsoleFormatter", "to_console"]

_QUIET = ("aio_pika", "aiokafka", "aiormq", "asyncio", "faststream", "nats", "redis")
"""Clients that tell at INFO what is eventkit's own business; their warnings are shown."""

_WIDTH = 14
_LEVELS = {"WARNING": "WARN", "CRITICAL": "FATAL"}
_COLOURS = {"WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}
_SERVICE_COLOURS = ("36", "35", "34", "32", "96", "95", "94", "92")
_DIM, _BOLD = "2", "1"

_UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
_DURATION = re.compile(r" in [\d.]+ m?s$")


class ConsoleFormatter(logging.Formatter):
    """`time  level  service  what happened  ~correlation`.

    The service is the group that a record of eventkit is about, and the logger's name on any other. The mark at the end
    is the tail of the correlation id, the same on all lines that came of one first message. The message's own id stands
    in lines that somebody may have to act on (WARNING and up) and is left out of the others. Other loggers may be named
    after a service to stand in its column.
    """

    def __init__(self, *, colours: bool = False, worker: int | None = None) -> None:
        """`worker`: the number of this process among those of `eventkit run --workers`; 0 is the one that watches."""
        super().__init__()
        self._colours = colours
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        said = record.getMessage()
        group = getattr(record, "group", None)
        whose = str(group or record.name)
        if group is None:
            # records about a group as a whole say it first
            head, separator, rest = said.partition(": ")
            if record.name == "eventkit" and separator and " " not in head:
                whose, said = head, rest
        else:
            said = said.removeprefix(f"{group}: ")
            message_id = getattr(record, "message_id", None)
            if message_id:
                said = said.replace(f" ({message_id})", "", 1)
                if record.levelno >= logging.WARNING:
                    said += f"  id={message_id}"
        said = said.translate(_UNPRINTABLE)  # a key may hold anything, and must not write lines of its own
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        parts = [
            self._paint(f"{clock}.{int(record.msecs):03d}", _DIM),
            self._paint(f"{_LEVELS.get(record.levelname, record.levelname):<5}", _COLOURS.get(record.levelname)),
            *([] if self._worker is None else [self._paint(f"#{self._worker}", _DIM)]),
            self._paint(f"{_fit(whose):<{_WIDTH}}", _colour_of(whose)),
            self._emphasise(record, said),
        ]
        correlation = getattr(record, "correlation_id", None)
        if correlation:
            parts.append(self._paint(f"~{str(correlation)[-6:]}", _DIM))
        line = "  ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            line += "\n" + record.stack_info
        return line

    def _emphasise(self, record: logging.LogRecord, said: str) -> str:
        kind = getattr(record, "message_type", None)
        if not self._colours or not kind:
            return said
        if record.levelno < logging.WARNING and (duration := _DURATION.search(said)):
            said = said[: duration.start()] + self._paint(duration.group(), _DIM)
        return said.replace(kind, self._paint(kind, _BOLD), 1)

    def _paint(self, text: str, code: str | None) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours and code else text


def to_console(level: str = "INFO", stream: TextIO | None = None, *, worker: int | None = None) -> None:
    """Send all records of this process to `stream` (None: standard error) in this form. Twice is harmless."""
    console = sys.stderr if stream is None else stream
    write_to(console, ConsoleFormatter(colours=wants_colours(console), worker=worker), level)


def write_to(stream: TextIO, formatter: logging.Formatter, level: str) -> None:
    """Send all records of this process there in that form; takes the place of what was said here before."""
    handler = _Written(stream)
    handler.setFormatter(formatter)
    handler.addFilter(LogFields())
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _Written)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    if root.level > logging.DEBUG:
        for name in _QUIET:
            logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class _Written(logging.StreamHandler[TextIO]):
    """Ours, to be known again."""


def wants_colours(stream: TextIO) -> bool:
    """Only at a terminal, and never where NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _fit(name: str) -> str:
    return name if len(name) <= _WIDTH else "…" + name[-(_WIDTH - 1) :]


def _colour_of(name: str) -> str:
    """The same for a service and its groups, in every run."""
    return _SERVICE_COLOURS[zlib.crc32(name.partition(".")[0].encode()) % len(_SERVICE_COLOURS)]
