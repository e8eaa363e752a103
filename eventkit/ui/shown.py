"""Messages and dead letters as the page is told of them: redacted and cut (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from eventkit import headers as h
from eventkit.adapter import Message
from eventkit.letter import DeadLetter
from eventkit.redacting import Redactor
from eventkit.ui.arrivals import BODY, Arrival

TEXT = 16_000
"""Characters of a body that are shown."""
_BRIEF = 200
_HEADER = 2_000


def row(arrival: Arrival, redactor: Redactor) -> dict[str, Any]:
    """A message that came."""
    message = redactor.shown(arrival.message)
    get = message.headers.get
    whole: str | None = body(message)
    if arrival.message.body is None and arrival.size:
        whole = f"({arrival.size:,} bytes, too many for this page: eventkit tail shows them)"
    return {
        "n": arrival.number,
        "at": arrival.at.isoformat(timespec="milliseconds"),
        "published": get(h.TIME),
        "address": str(message.address),
        "type": message.type,
        "key": message.key,
        "id": get(h.ID, ""),
        "source": get(h.SOURCE, ""),
        "correlation": get(h.CORRELATION) or get(h.CORRELATION_ID, ""),
        "brief": _brief(message, whole),
        "body": whole,
        "headers": headers(message.headers),
    }


def letter(found: DeadLetter, redactor: Redactor) -> dict[str, Any]:
    """A dead letter in a list."""
    return _letter(redactor.letter(found))


def _letter(found: DeadLetter) -> dict[str, Any]:
    return {
        "id": found.id,
        "group": found.group,
        "type": found.type,
        "key": found.key,
        "reason": found.reason,
        "attempts": found.attempts,
        "redriven": found.redriven,
        "first_failure": found.first_failure and found.first_failure.isoformat(timespec="seconds"),
        "last_failure": found.last_failure and found.last_failure.isoformat(timespec="seconds"),
        "origin": str(found.origin),
        "error_type": found.error_type,
        "error_message": found.error_message,
    }


def whole_letter(found: DeadLetter, redactor: Redactor) -> dict[str, Any]:
    """With its stack, headers and body."""
    redacted = redactor.letter(found)
    size = len(found.body or b"")
    shown = body(redacted.message)
    if size > BODY:
        shown = f"({size:,} bytes, too many for this page: eventkit dead-letters show {found.id} shows them)"
    every = headers(redacted.message.headers)
    return {
        **_letter(redacted),
        "error_stack": redacted.error_stack,
        "headers": {name: value for name, value in every.items() if name != h.ERROR_STACK},
        "body": shown,
    }


def body(message: Message) -> str | None:
    """JSON on lines of its own, anything else as it reads; None: it has none."""
    if message.body is None:
        return None
    try:
        text = json.dumps(json.loads(message.body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = message.body.decode(errors="backslashreplace")
    return text if len(text) <= TEXT else f"{text[:TEXT]}\n[cut: {len(text) - TEXT:,} characters more]"


def headers(given: Mapping[str, str]) -> dict[str, str]:
    """In the order of their names, long values cut."""
    return {
        name: value if len(value) <= _HEADER else f"{value[:_HEADER]} [cut]" for name, value in sorted(given.items())
    }


def _brief(message: Message, whole: str | None) -> str:
    """A body in one line."""
    if whole is None:
        return "(no body)"
    try:
        text = json.dumps(json.loads(message.body or b""), ensure_ascii=False)
    except (ValueError, RecursionError):
        text = " ".join(whole.split())
    return text if len(text) <= _BRIEF else f"{text[: _BRIEF - 1]}…"
