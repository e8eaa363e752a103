"""Examples made from a schema: the same at each run, and only those that fit (pure)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from eventkit.asyncapi.fitting import REF, Schema, fits
from eventkit.asyncapi.patterns import matching

_DEEPEST = 30

_FORMATS = {
    "date-time": "2026-01-15T09:30:00Z",
    "date": "2026-01-15",
    "time": "09:30:00Z",
    "duration": "PT15M",
    "uuid": "6f1d9a52-3c1b-4f0e-9d57-0b8a6f0c2f11",
    "email": "ada@example.com",
    "idn-email": "ada@example.com",
    "uri": "https://example.com/",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "ipvanyaddress": "192.0.2.1",
    "binary": "text",
    "byte": "dGV4dA==",
    "base64url": "dGV4dA==",
    "json-string": "{}",
    "password": "**********",
    "path": "folder/file",
    "file-path": "folder/file",
    "directory-path": "folder",
}
_TEXTS = ("text", "12.50", "1", "A1", "a", "TEXT", "12", "2026-01-15", "PT15M", "")


class NoExample(Exception):
    """No value was found that fits."""


def example(schema: Schema, components: Mapping[str, Schema], *, optional: bool = True) -> Any:
    """A value that fits the schema, with its optional parts or without. NoExample, if none was found."""
    value = _Maker(components, optional).value(schema, "", 0)
    if not fits(value, schema, components):
        raise NoExample
    return value


class _Maker:
    def __init__(self, components: Mapping[str, Schema], optional: bool) -> None:
        self._components = components
        self._optional = optional
        self._inside: list[str] = []

    def value(self, schema: Schema, name: str, depth: int) -> Any:
        if isinstance(schema, bool):
            return "text"
        if depth > _DEEPEST:
            raise NoExample
        for given in (schema.get("examples", ()), [schema["default"]] if "default" in schema else ()):
            for candidate in given:
                if candidate not in (None, "", [], {}) and fits(candidate, schema, self._components):
                    return candidate
        if "$ref" in schema:
            return self._referred(schema["$ref"].removeprefix(REF), name, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][0]
        for word in ("oneOf", "anyOf"):
            if word in schema:
                return self._choice(schema[word], schema, name, depth)
        if len(schema.get("allOf", ())) == 1 and "type" not in schema:
            return self.value(schema["allOf"][0], name, depth)
        return self._by_type(schema, name, depth)

    def _referred(self, component: str, name: str, depth: int) -> Any:
        if component in self._inside:
            raise NoExample  # a model that holds itself: once is enough
        self._inside.append(component)
        try:
            return self.value(self._components[component], name, depth + 1)
        finally:
            self._inside.pop()

    def _choice(self, choices: list[Schema], schema: Schema, name: str, depth: int) -> Any:
        # null last: an example that shows nothing helps nobody
        for choice in sorted(choices, key=lambda part: isinstance(part, dict) and part.get("type") == "null"):
            try:
                value = self.value(choice, name, depth + 1)
            except NoExample:
                continue
            if fits(value, schema, self._components):
                return value
        raise NoExample

    def _by_type(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = kind[0]
        match kind:
            case "string":
                return self._text(schema, name)
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
            case "array":
                return self._array(schema, name, depth)
            case _:
                return self._object(schema, depth)

    def _text(self, schema: Mapping[str, Any], name: str) -> str:
        if schema.get("format") == "decimal":
            number = _number(schema, whole=False)
            return f"{number:.2f}" if schema.get("x-decimalPlaces", 2) >= 2 else str(number)
        found = _FORMATS.get(schema.get("format", ""))
        candidates = [found] if found is not None else []
        if "pattern" in schema:
            candidates += [*_TEXTS, matching(schema["pattern"]) or ""]
        else:
            candidates += [name.replace("_", "-") or "text", *_TEXTS]
        least, most = schema.get("minLength", 0), schema.get("maxLength", math.inf)
        for candidate in [*candidates, *(text.ljust(least, "x") for text in candidates)]:
            text = candidate if len(candidate) <= most else candidate[: int(most)]
            if fits(text, schema, self._components):
                return text
        raise NoExample

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        items = schema.get("items", True)
        least = schema.get("minItems", 0)
        if isinstance(items, list):
            return [self.value(item, name, depth + 1) for item in items]
        try:
            item = self.value(items, name, depth + 1)
        except NoExample:
            if least:
                raise
            return []
        if least > 1 and schema.get("uniqueItems"):
            return self._different(items, item, least)
        return [item] * max(least, min(1, schema.get("maxItems", 1)))

    def _different(self, items: Schema, first: Any, count: int) -> list[Any]:
        resolved = self._components[items["$ref"].removeprefix(REF)] if "$ref" in items else items
        pool = resolved.get("enum") or [
            first if n == 0 else f"{first}-{n}" if isinstance(first, str) else first + n for n in range(count)
        ]
        return list(pool[:count])

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        required = schema.get("required", ())
        found: dict[str, Any] = {}
        for name, part in schema.get("properties", {}).items():
            if name not in required and (not self._optional or part is False or _outdated(part)):
                continue
            try:
                found[name] = self.value(part, name, depth + 1)
            except NoExample:
                if name in required:
                    raise
        extra = schema.get("additionalProperties")
        if not found and isinstance(extra, dict) and "properties" not in schema:
            return self._mapping(schema, extra, depth)
        return found

    def _mapping(self, schema: Mapping[str, Any], values: Schema, depth: int) -> dict[str, Any]:
        try:
            key = str(self.value({"type": "string", **schema.get("propertyNames", {})}, "key", depth + 1))
            return {key: self.value(values, "value", depth + 1)}
        except NoExample:
            if schema.get("minProperties", 0):
                raise
            return {}


def _outdated(part: Schema) -> bool:
    return isinstance(part, dict) and bool(part.get("deprecated"))


def _number(schema: Mapping[str, Any], *, whole: bool) -> float:
    least = schema.get("minimum", schema.get("exclusiveMinimum", -math.inf))
    most = schema.get("maximum", schema.get("exclusiveMaximum", math.inf))
    step = schema.get("multipleOf")
    candidates: list[float] = [12.5, 1, 0, least, least + 1, (least + most) / 2, most, most - 1]
    if step:
        base = 0 if least == -math.inf else math.ceil(least / step) * step
        candidates = [step, base, base + step, *candidates]
    for candidate in candidates:
        if not math.isfinite(candidate) or (whole and not float(candidate).is_integer()):
            continue
        value = int(candidate) if float(candidate).is_integer() else candidate
        if fits(value, {**schema, "type": "number"}, {}):
            return value
    raise NoExample
