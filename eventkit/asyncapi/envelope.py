"""The headers of events, commands and replies as schemas: CloudEvents' and ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from eventkit import headers as h
from eventkit.copies import Reason

Kind: TypeAlias = Literal["event", "command", "reply"]
KINDS: tuple[Kind, ...] = ("event", "command", "reply")

SCHEMAS: Mapping[Kind, str] = {kind: f"eventkit.{kind.capitalize()}Headers" for kind in KINDS}
"""Their keys in `components.schemas`. No Python class has a dot in its name."""

_TIME = {"type": "string", "format": "date-time"}
_COUNT = {"type": "string", "pattern": "^[0-9]+$"}
_TEXT = {"type": "string"}


class Header(NamedTuple):
    name: str
    schema: Mapping[str, Any]
    description: str
    kinds: tuple[Kind, ...] = KINDS
    required: bool = False


_COPIES: tuple[Kind, ...] = ("event", "command")

HEADERS = (
    Header(h.SPECVERSION, {"const": "1.0", "type": "string"}, "The version of CloudEvents.", required=True),
    Header(h.ID, {"type": "string", "minLength": 1}, "Unique for its source: tells repeats apart.", required=True),
    Header(h.SOURCE, {"type": "string", "minLength": 1}, "The service that published it.", required=True),
    Header(h.TYPE, _TEXT, "The message's type: its name on the wire.", required=True),
    Header(h.TIME, _TIME, "When it was published.", required=True),
    Header(h.VERSION, _COUNT, "The version of the payload's schema.", _COPIES, required=True),
    Header(h.SUBJECT, _TEXT, "The key.", _COPIES),
    Header(h.PARTITION_KEY, _TEXT, "The key: messages of one key keep their order.", _COPIES),
    Header(h.CORRELATION, _TEXT, "The same for all that one message has led to.", required=True),
    Header(h.CAUSATION, _TEXT, "The id of the message that led to this one."),
    Header(h.EXPIRY, _TIME, "Requests: when the requester stops waiting.", ("command",)),
    Header(h.CONTENT_TYPE, _TEXT, "How the payload is written.", required=True),
    Header(h.CORRELATION_ID, _TEXT, f"As {h.CORRELATION}, by the name that other libraries read.", required=True),
    Header(h.MESSAGE_ID, _TEXT, "The id of this copy: brokers drop repeats by it.", required=True),
    Header(h.REPLY_TO, _TEXT, "Requests: where the reply goes.", ("command",)),
    Header(h.TRACEPARENT, _TEXT, "W3C Trace Context."),
    Header(h.TRACESTATE, _TEXT, "W3C Trace Context."),
    Header(h.DUE, _TIME, "Delayed messages and retries: not to be handled before.", _COPIES),
    Header(h.ATTEMPT, _COUNT, "Copies to try again: which attempt it is, from 1.", _COPIES),
    Header(h.GROUP, _TEXT, "Copies: the group whose handler failed.", _COPIES),
    Header(h.ORIGIN, _TEXT, "Copies: the channel of the original.", _COPIES),
    Header(h.WAITED, _COUNT, "Copies: how often it came back untried.", _COPIES),
    Header(h.REDRIVEN, _COUNT, "Copies: how often a person sent it back from the dead letters.", _COPIES),
    Header(h.FIRST_FAILURE, _TIME, "Copies: when it failed first.", _COPIES),
    Header(h.LAST_FAILURE, _TIME, "Dead letters: when it failed last.", _COPIES),
    Header(
        h.REASON,
        {"type": "string", "enum": [reason.value for reason in Reason]},
        "Dead letters: why it was given up on.",
        _COPIES,
    ),
    Header(h.ERROR_TYPE, _TEXT, "Dead letters: the exception's class.", _COPIES),
    Header(h.ERROR_MESSAGE, _TEXT, "Dead letters: the exception's text.", _COPIES),
    Header(h.ERROR_STACK, _TEXT, "Dead letters: the exception's stack.", _COPIES),
    Header(
        h.OUTCOME,
        {"type": "string", "enum": ["ok", "rejected", "failed"]},
        "How the command ended.",
        ("reply",),
        required=True,
    ),
)

_ABOUT: Mapping[Kind, str] = {
    "event": "Headers of events.",
    "command": "Headers of commands.",
    "reply": "Headers of replies to commands.",
}


def schema(kind: Kind) -> dict[str, Any]:
    """What all messages of a kind have in their headers. Others may be there too: text of the user's own."""
    mine = [header for header in HEADERS if kind in header.kinds]
    return {
        "type": "object",
        "description": _ABOUT[kind],
        "properties": {header.name: {**header.schema, "description": header.description} for header in mine},
        "required": [header.name for header in mine if header.required],
        "additionalProperties": {"type": "string"},
    }


def of(kind: Kind, constants: Mapping[str, str], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """The headers of one message: those of its kind, some with a value that is always the same."""
    found: dict[str, Any] = {
        "type": "object",
        "allOf": [{"$ref": f"#/components/schemas/{SCHEMAS[kind]}"}],
        "properties": {name: {"type": "string", "const": value} for name, value in constants.items()},
    }
    if required:
        found["required"] = list(required)
    return found


def example(kind: Kind, source: str, constants: Mapping[str, str], key: str | None = None) -> dict[str, str]:
    """Headers as they could be: the same in every document."""
    identity = "0199b4f0-5a00-7000-8000-000000000001"
    found = {
        h.SPECVERSION: "1.0",
        h.ID: identity,
        h.SOURCE: source,
        h.TIME: "2026-01-15T09:30:00+00:00",
        h.CORRELATION: identity,
        h.CORRELATION_ID: identity,
        h.MESSAGE_ID: identity,
        **constants,
    }
    if kind == "reply":
        found[h.CAUSATION] = "0199b4f0-5a00-7000-8000-000000000000"
    if key is not None:
        found[h.SUBJECT] = found[h.PARTITION_KEY] = key
    return found
