"""What a schema allows, taken apart: references, parts, and alternatives with one type each (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Resolve: TypeAlias = Callable[[Any], Any]
"""What a reference leads to."""

_NAMES: Mapping[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
    list: "array",
    dict: "object",
}


def flat(schema: Any, resolve: Resolve) -> dict[str, Any]:
    """A schema as one mapping: references followed, parts of an `allOf` laid together."""
    schema = resolve(schema)
    if schema is False:
        return {"not": {}}
    if not isinstance(schema, dict):
        return {}
    parts = schema.get("allOf")
    if not isinstance(parts, list):
        return schema
    found: dict[str, Any] = {}
    for part in parts:
        for word, value in flat(part, resolve).items():
            if word == "properties":
                found[word] = {**found.get(word, {}), **value}
            elif word == "required":
                found[word] = sorted({*found.get(word, ()), *value})
            else:
                found[word] = value
    return {**found, **{word: value for word, value in schema.items() if word != "allOf"}}


def choices(schema: dict[str, Any], resolve: Resolve) -> list[dict[str, Any]]:
    """The alternatives of a schema, each with one type."""
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            return [choice for part in schema[word] for choice in choices(flat(part, resolve), resolve)]
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": kind} for kind in schema["type"]]
    values = listed(schema)
    if values is not None and "type" not in schema:
        kinds = dict.fromkeys(_NAMES[type(value)] for value in values)
        return [
            {**schema, "type": kind, "enum": [value for value in values if _NAMES[type(value)] == kind]}
            for kind in kinds
        ]
    return [schema]


def matched(
    before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> tuple[list[tuple[dict[str, Any], dict[str, Any]]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Which alternative became which: the same title first, then the same type; and what is left on each side."""
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
    gone, come = list(before), list(after)
    for alike in (_title_of, _shape_of):
        for one in list(gone):
            other = next((other for other in come if alike(one) is not None and alike(one) == alike(other)), None)
            if other is not None:
                pairs.append((one, other))
                gone = [item for item in gone if item is not one]
                come = [item for item in come if item is not other]
    return pairs, gone, come


def _title_of(schema: Mapping[str, Any]) -> object:
    return (schema.get("type"), schema["title"]) if "title" in schema else None


def _shape_of(schema: Mapping[str, Any]) -> object:
    # two models are not one that changed: an alternative went, another came
    if schema.get("type") == "object" and "title" in schema:
        return None
    return schema.get("type"), schema.get("format")


def listed(schema: Mapping[str, Any]) -> list[Any] | None:
    """The only values that a schema allows; None: it names none."""
    values = schema.get("enum")
    if isinstance(values, list):
        return values
    return [schema["const"]] if "const" in schema else None
