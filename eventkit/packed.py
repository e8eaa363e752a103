"""A message in its wire form as one piece of text, for stores that keep it until it is published (pure)."""

from __future__ import annotations

import base64
import json
from datetime import datetime

from eventkit.adapter import Address, Message

_FORMAT = 1


def pack(message: Message) -> str:
    """In ASCII, so that every store keeps it."""
    kind, name, physical = message.address
    body = None if message.body is None else base64.b64encode(message.body).decode()
    due = None if message.due is None else message.due.isoformat()
    parts = [_FORMAT, [kind, name, physical], message.type, message.key, dict(message.headers), body, due]
    return json.dumps(parts, separators=(",", ":"))


def unpack(text: str) -> Message:
    """The message again; ValueError for what `pack` did not make, or what one of a later release made."""
    try:
        made_by, (kind, name, physical), type_, key, headers, body, due = json.loads(text)
        if made_by != _FORMAT:
            raise ValueError(f"form {made_by!r}, and {_FORMAT} is known here")
        return Message(
            Address(kind, name, physical),
            type_,
            key,
            headers,
            None if body is None else base64.b64decode(body),
            None if due is None else datetime.fromisoformat(due),
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"this is no message that was kept by this release: {error}") from error
