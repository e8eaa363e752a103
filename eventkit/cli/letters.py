"""Dead letters as a terminal and as programs read them (pure)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from eventkit.cli.table import ago, printable, printable_lines, table
from eventkit.letter import DeadLetter

_HEAD = ("id", "type", "key", "reason", "attempts", "retried", "failed", "error")


def as_table(page: Sequence[DeadLetter], width: int) -> Iterator[str]:
    """A page of letters, a line each."""
    now = datetime.now(UTC)
    rows = [
        (
            letter.id,
            letter.type or "-",
            "-" if letter.key is None else letter.key,
            letter.reason,
            str(letter.attempts),
            str(letter.redriven),
            f"{ago(letter.last_failure, now)} ago" if letter.last_failure else "",
            ": ".join(part for part in (letter.error_type, letter.error_message) if part),
        )
        for letter in page
    ]
    return table(_HEAD, rows, width, right=("attempts", "retried"))


def as_json(letter: DeadLetter, *, whole: bool = False) -> dict[str, Any]:
    """`whole`: with its stack, headers and body."""
    shown: dict[str, Any] = {
        "group": letter.group,
        "id": letter.id,
        "type": letter.type,
        "key": letter.key,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "redriven": letter.redriven,
        "first_failure": letter.first_failure and letter.first_failure.isoformat(),
        "last_failure": letter.last_failure and letter.last_failure.isoformat(),
        "origin": str(letter.origin),
        "error_type": letter.error_type,
        "error_message": letter.error_message,
    }
    if whole:
        shown |= {"error_stack": letter.error_stack, "headers": dict(letter.message.headers)}
        body = letter.body or b""
        try:
            shown["body"] = None if letter.body is None else body.decode()
        except UnicodeDecodeError:
            shown["body_base64"] = base64.b64encode(body).decode()
    return shown


def as_text(letter: DeadLetter) -> str:
    now = datetime.now(UTC)
    lines = [
        ("id", letter.id),
        ("type", letter.type or "(it does not say)"),
        ("key", "(none)" if letter.key is None else letter.key),
        ("group", letter.group),
        ("first at", str(letter.origin)),
        ("reason", letter.reason or "(it does not say)"),
        ("attempts", str(letter.attempts)),
        ("retried", f"{letter.redriven} times" if letter.redriven != 1 else "once"),
        ("failed first", _when(letter.first_failure, now)),
        ("failed last", _when(letter.last_failure, now)),
        ("error", ": ".join(part for part in (letter.error_type, letter.error_message) if part)),
    ]
    own = sorted((name, value) for name, value in letter.headers.items())
    shown = [f"{name:<13} {printable(value)}" for name, value in lines]
    shown += [f"{'header':<13} {printable(name)}: {printable(value)}" for name, value in own]
    if letter.error_stack:
        shown += ["", printable_lines(letter.error_stack.rstrip())]
    return "\n".join([*shown, "", _body(letter.body), ""])


def _when(when: datetime | None, now: datetime) -> str:
    return "(it does not say)" if when is None else f"{when.isoformat(' ', 'seconds')} ({ago(when, now)} ago)"


def _body(body: bytes | None) -> str:
    if body is None:
        return "(no body: a tombstone)"
    try:
        return printable_lines(json.dumps(json.loads(body), indent=2, ensure_ascii=False))
    except ValueError:
        return printable_lines(body.decode(errors="backslashreplace")) or "(empty body)"
