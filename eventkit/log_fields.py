"""Log fields: every record that is logged while a message is handled says which message that is."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from eventkit import headers as h
from eventkit.adapter import Message


class _Handled(NamedTuple):
    service: str
    group: str | None
    key: str | None
    message: Message | None
    attempt: int | None
    batch: int | None


_current: ContextVar[_Handled | None] = ContextVar("eventkit_log_fields", default=None)
_asked = False


class LogFields(logging.Filter):
    """Adds to a record what it was logged about: `service`, `group`, `message_id`, `message_type`, `message_key`,
    `correlation_id` and `attempt`; of a batch `service`, `group` and `batch`, the number of its messages.

    A filter for `logging`: put it on a handler (a logger's own filters do not see what its children log), and a
    formatter can show the fields. `eventkit run` does that by itself. The same object is a processor for structlog.
    What is logged outside of handlers stays as it is, and a field that a record has already is kept. Plain functions
    in threads have them; a thread of your own needs `contextvars.copy_context().run`, as `asyncio.to_thread` does it.
    """

    def __init__(self, name: str = "") -> None:
        """`name`: as for `logging.Filter`."""
        super().__init__(name)
        global _asked
        _asked = True

    def filter(self, record: logging.LogRecord) -> bool:
        if not super().filter(record):
            return False
        for name, value in current().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True

    def __call__(self, logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """As structlog calls its processors."""
        for name, value in current().items():
            event_dict.setdefault(name, value)
        return event_dict


def asked() -> bool:
    """Is there anything in this process that shows them? Until then a handler costs nothing for it."""
    return _asked


def enter(service: str, group: str | None, key: str | None, message: Message, attempt: int) -> None:
    """From here on, in this context and those that are copied from it, this message is handled. `key`: as shown."""
    _current.set(_Handled(service, group, key, message, attempt, None))


def enter_batch(service: str, group: str | None, count: int) -> None:
    """The same for so many at once."""
    _current.set(_Handled(service, group, None, None, None, count))


def current() -> Mapping[str, object]:
    """Of what is handled here and now; empty where nothing is."""
    found = _current.get()
    if found is None:
        return {}
    if found.message is None:
        return {"service": found.service, "group": found.group, "batch": found.batch}
    return of(found.service, found.group, found.key, found.message, found.attempt)


def of(service: str, group: str | None, key: str | None, message: Message, attempt: int | None) -> dict[str, object]:
    """The fields of a record about this message."""
    headers = message.headers
    return {
        "message_id": headers.get(h.ID),
        "message_type": message.type,
        "message_key": key,
        "correlation_id": headers.get(h.CORRELATION),
        "attempt": attempt,
        "service": service,
        "group": group,
    }
