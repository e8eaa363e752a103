"""A change between two documents: what it is called, whom it breaks, and where (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

Side: TypeAlias = Literal["consumers", "producers"]
CONSUMERS: Side = "consumers"
PRODUCERS: Side = "producers"

_LONGEST = 120


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `breaks` nobody: it is compatible."""

    rule: str
    where: str
    """Channel, message and field: `orders/OrderPlaced/address.street`."""
    text: str
    breaks: frozenset[Side] = frozenset()
    before: str = ""
    after: str = ""

    @property
    def id(self) -> str:
        """By which it is accepted."""
        return f"{self.rule} {self.where}"

    @property
    def level(self) -> str:
        """`compatible`, `breaking for consumers`, `breaking for producers`, or for both."""
        return f"breaking for {' and '.join(sorted(self.breaks))}" if self.breaks else "compatible"


class Difference(NamedTuple):
    """A rule, and the path of the field inside the payload."""

    rule: str
    path: str
    before: str = ""
    after: str = ""


class Rule(NamedTuple):
    """A class of changes. The table in docs/asyncapi.md has a line for each."""

    meaning: str
    event: frozenset[Side]
    command: frozenset[Side]
    reply: frozenset[Side] = frozenset()
    """Whom it breaks in the value that answers a command: who sent that command reads it."""


_BOTH: frozenset[Side] = frozenset({CONSUMERS, PRODUCERS})
_CONSUMERS: frozenset[Side] = frozenset({CONSUMERS})
_PRODUCERS: frozenset[Side] = frozenset({PRODUCERS})
_NOBODY: frozenset[Side] = frozenset()

RULES: Mapping[str, Rule] = {
    # fields
    "field-added": Rule("an optional field is new", _NOBODY, _NOBODY, _NOBODY),
    "field-added-required": Rule("a required field is new", _PRODUCERS, _PRODUCERS, _NOBODY),
    "field-added-refused": Rule(
        "a field is new where old readers refuse unknown ones", _CONSUMERS, _NOBODY, _PRODUCERS
    ),
    "field-removed": Rule("a field is gone", _CONSUMERS, _PRODUCERS, _PRODUCERS),
    "field-removed-refused": Rule("a field is gone, and unknown ones are refused", _BOTH, _PRODUCERS, _PRODUCERS),
    "field-made-required": Rule("an optional field is required now", _PRODUCERS, _PRODUCERS, _NOBODY),
    "field-made-optional": Rule("a required field may be absent now", _CONSUMERS, _NOBODY, _PRODUCERS),
    "default-changed": Rule("the default of a field is another one", _NOBODY, _NOBODY, _NOBODY),
    "extra-refused": Rule("unknown fields are refused now", _PRODUCERS, _PRODUCERS, _NOBODY),
    "extra-allowed": Rule("unknown fields may be there now", _CONSUMERS, _NOBODY, _PRODUCERS),
    # types and values
    "type-changed": Rule("a type is another one", _BOTH, _PRODUCERS, _PRODUCERS),
    "type-narrowed": Rule("fewer types are possible", _PRODUCERS, _PRODUCERS, _NOBODY),
    "type-widened": Rule("more types are possible", _CONSUMERS, _NOBODY, _PRODUCERS),
    "enum-value-removed": Rule("a value is no longer possible", _PRODUCERS, _PRODUCERS, _NOBODY),
    "enum-value-added": Rule("a value is new", _CONSUMERS, _NOBODY, _PRODUCERS),
    "constraint-tightened": Rule("a limit is narrower, or new", _PRODUCERS, _PRODUCERS, _NOBODY),
    "constraint-loosened": Rule("a limit is wider, or gone", _CONSUMERS, _NOBODY, _PRODUCERS),
    "format-changed": Rule("a pattern or format is another one", _BOTH, _PRODUCERS, _PRODUCERS),
    # messages
    "message-added": Rule("a message is new", _NOBODY, _NOBODY),
    "message-removed": Rule("a message is gone that was sent or, a command, handled", _CONSUMERS, _PRODUCERS),
    "message-unhandled": Rule("no service of the document handles it any more", _NOBODY, _PRODUCERS),
    "message-unsent": Rule("no service of the document sends it any more", _CONSUMERS, _NOBODY),
    "type-name-changed": Rule("a message has another name on the wire", _BOTH, _PRODUCERS),
    "kind-changed": Rule("an event is a command now, or the other way round", _BOTH, _BOTH),
    "version-raised": Rule("the version is higher", _CONSUMERS, _NOBODY),
    "version-lowered": Rule("the version is lower", _PRODUCERS, _PRODUCERS),
    "key-changed": Rule("another field orders messages, or none", _CONSUMERS, _CONSUMERS),
    "key-added": Rule("a field orders messages, which none did", _NOBODY, _NOBODY),
    "content-type-changed": Rule("the payload is written in another way", _BOTH, _PRODUCERS),
    "reply-added": Rule("a command answers with a value, which it did not", _NOBODY, _NOBODY),
    "reply-removed": Rule("a command answers with no value any more", _NOBODY, _PRODUCERS),
    # channels
    "address-changed": Rule("a channel is somewhere else on the broker", _BOTH, _BOTH),
    "channel-added": Rule("a channel is new", _NOBODY, _NOBODY),
    "policy-changed": Rule("retries, dead letters, a time limit, a batch or a group are others", _NOBODY, _NOBODY),
    "text-changed": Rule("titles, descriptions, examples or deprecations are others", _NOBODY, _NOBODY),
    "document-changed": Rule("something else in the document is different", _NOBODY, _NOBODY),
}


def shown(value: object) -> str:
    """A value in a line of a report."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def type_of(schema: Any) -> str:
    """What a schema is called in a line of a report."""
    if not isinstance(schema, dict):
        return "anything" if schema else "nothing"
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema:
        return shown(schema["const"])
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " | ".join(type_of(part) for part in schema[word])
    kind = schema.get("type", "anything")
    if isinstance(kind, list):
        return " | ".join(kind)
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)
