"""Two payload schemas compared: what has become narrower, what wider (pure).

References are followed on both sides, so that neither the names of components nor their places matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from eventkit.asyncapi.changes import shown, type_of

Resolve: TypeAlias = Callable[[Any], Any]

_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "x-maxDigits", "x-decimalPlaces")
_SAME = ("pattern", "format", "contentEncoding", "contentMediaType", "not", "if", "then", "else", "contains")
_TEXTS = ("title", "description", "examples", "deprecated", "$comment", "externalDocs", "readOnly", "writeOnly")


class Difference(NamedTuple):
    """A rule, and the path of the field inside the payload."""

    rule: str
    path: str
    before: str = ""
    after: str = ""


def differences(old: Any, new: Any, of_old: Resolve, of_new: Resolve) -> list[Difference]:
    """All differences, in the order of the fields."""
    walk = _Walk(of_old, of_new)
    return list(dict.fromkeys(walk.compare(old, new, "")))


class _Walk:
    def __init__(self, of_old: Resolve, of_new: Resolve) -> None:
        self._of_old = of_old
        self._of_new = of_new
        self._open: set[tuple[int, int]] = set()
        self._flattened: dict[int, tuple[Any, dict[str, Any]]] = {}

    def compare(self, old: Any, new: Any, path: str) -> Iterator[Difference]:
        old, new = self._flat(old, self._of_old), self._flat(new, self._of_new)
        pair = (id(old), id(new))
        if pair in self._open or (old == new and not _refers(old)):
            return  # a model that holds itself, or nothing to look into
        self._open.add(pair)
        yield from self._opened(old, new, path)
        self._open.discard(pair)

    def _flat(self, schema: Any, resolve: Resolve) -> dict[str, Any]:
        """`_flat`, the same object each time, by which a model that holds itself is recognised."""
        schema = resolve(schema)
        if id(schema) not in self._flattened:
            self._flattened[id(schema)] = (schema, _flat(schema, resolve))
        return self._flattened[id(schema)][1]

    def _opened(self, old: dict[str, Any], new: dict[str, Any], path: str) -> Iterator[Difference]:
        if any(old.get(word) != new.get(word) for word in _TEXTS):
            yield Difference("text-changed", path)
        if "default" in old and old.get("default") != new.get("default", old["default"]):
            yield Difference("default-changed", path, shown(old["default"]), shown(new.get("default")))
        before, after = _choices(old, self._of_old), _choices(new, self._of_new)
        if len(before) == len(after) == 1:
            yield from self._single(before[0], after[0], path)
        else:
            yield from self._several(before, after, path)

    def _several(self, before: list[Any], after: list[Any], path: str) -> Iterator[Difference]:
        pairs, gone, come = _matched(before, after)
        for one, other in pairs:
            yield from self._single(one, other, path)
        shown_before = " | ".join(type_of(part) for part in before)
        shown_after = " | ".join(type_of(part) for part in after)
        if gone and come and not pairs:
            yield Difference("type-changed", path, shown_before, shown_after)
            return
        if gone:
            yield Difference("type-narrowed", path, shown_before, shown_after)
        if come:
            yield Difference("type-widened", path, shown_before, shown_after)

    def _single(self, old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Difference]:
        was, becomes = old.get("type"), new.get("type")
        if was != becomes:
            names = (type_of(old), type_of(new))
            rule = "type-changed"
            if becomes is None or (was, becomes) == ("integer", "number"):
                rule = "type-widened"
            elif was is None or (was, becomes) == ("number", "integer"):
                rule = "type-narrowed"
            yield Difference(rule, path, *names)
            if rule == "type-changed" or was is None or becomes is None:
                return
        yield from _values(old, new, path)
        yield from _limits(old, new, path)
        yield from _formats(old, new, path)
        yield from self._fields(old, new, path)
        yield from self._items(old, new, path)

    def _fields(self, old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Difference]:
        before, after = old.get("properties", {}), new.get("properties", {})
        needed_before, needed_after = _needed(old), _needed(new)
        refused_before = old.get("additionalProperties", True) is False
        refused_after = new.get("additionalProperties", True) is False
        for name in [*before, *(name for name in after if name not in before)]:
            place = f"{path}.{name}" if path else name
            if name not in after:
                rule = "field-removed-refused" if refused_after else "field-removed"
                yield Difference(rule, place, type_of(before[name]))
            elif name not in before:
                if refused_before:
                    yield Difference("field-added-refused", place, "", type_of(after[name]))
                rule = "field-added-required" if name in needed_after else "field-added"
                yield Difference(rule, place, "", type_of(after[name]))
            else:
                if name in needed_after - needed_before:
                    yield Difference("field-made-required", place, "optional", "required")
                if name in needed_before - needed_after:
                    yield Difference("field-made-optional", place, "required", "optional")
                yield from self.compare(before[name], after[name], place)
        yield from self._extra(old, new, path)

    def _extra(self, old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Difference]:
        before, after = old.get("additionalProperties", True), new.get("additionalProperties", True)
        if before is not False and after is False:
            yield Difference("extra-refused", path, "allowed", "refused")
        elif before is False and after is not False:
            yield Difference("extra-allowed", path, "refused", "allowed")
        elif before is not False:
            yield from self.compare(before, after, f"{path}.*" if path else "*")
        patterns_before, patterns_after = old.get("patternProperties", {}), new.get("patternProperties", {})
        for pattern in sorted({*patterns_before, *patterns_after}):
            place = f"{path}.{pattern}" if path else pattern
            yield from self.compare(patterns_before.get(pattern, True), patterns_after.get(pattern, True), place)
        if "propertyNames" in old or "propertyNames" in new:
            place = f"{path}.(name)" if path else "(name)"
            yield from self.compare(old.get("propertyNames", True), new.get("propertyNames", True), place)

    def _items(self, old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Difference]:
        before, after = old.get("items", True), new.get("items", True)
        if isinstance(before, list) and isinstance(after, list):
            if len(before) != len(after):
                yield Difference("type-changed", path, f"{len(before)} places", f"{len(after)} places")
            for place, (one, other) in enumerate(zip(before, after, strict=False)):
                yield from self.compare(one, other, f"{path}[{place}]")
        elif isinstance(before, list) or isinstance(after, list):
            yield Difference("type-changed", path, "list" if isinstance(after, list) else "tuple")
        else:
            yield from self.compare(before, after, f"{path}[]")


def _needed(schema: Mapping[str, Any]) -> set[str]:
    """The fields that a reader insists on: not those that are computed when it is written."""
    fields = schema.get("properties", {})
    computed = {name for name, field in fields.items() if isinstance(field, dict) and field.get("readOnly")}
    return set(schema.get("required", ())) - computed


def _flat(schema: Any, resolve: Resolve) -> dict[str, Any]:
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
        for word, value in _flat(part, resolve).items():
            if word == "properties":
                found[word] = {**found.get(word, {}), **value}
            elif word == "required":
                found[word] = sorted({*found.get(word, ()), *value})
            else:
                found[word] = value
    return {**found, **{word: value for word, value in schema.items() if word != "allOf"}}


def _choices(schema: dict[str, Any], resolve: Resolve) -> list[dict[str, Any]]:
    """The alternatives of a schema, each with one type."""
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            return [choice for part in schema[word] for choice in _choices(_flat(part, resolve), resolve)]
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": kind} for kind in schema["type"]]
    return [schema]


def _matched(
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


def _values(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Difference]:
    before, after = _listed(old), _listed(new)
    if before is None and after is None:
        return
    if before is None or after is None:
        rule = "constraint-tightened" if before is None else "constraint-loosened"
        yield Difference(rule, path, "any value" if before is None else shown(before), shown(after or "any value"))
        return
    for value in before:
        if value not in after:
            yield Difference("enum-value-removed", path, shown(value))
    for value in after:
        if value not in before:
            yield Difference("enum-value-added", path, "", shown(value))


def _listed(schema: Mapping[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else None


def _limits(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Difference]:
    for words, sign in ((_LOWER, 1), (_UPPER, -1)):
        for word in words:
            before, after = old.get(word), new.get(word)
            if before == after:
                continue
            tighter = before is None or (after is not None and sign * (after - before) > 0)
            yield _limit(word, before, after, path, tighter=tighter)
    if old.get("multipleOf") != new.get("multipleOf"):
        before, after = old.get("multipleOf"), new.get("multipleOf")
        if before is not None and after is not None:
            yield Difference("format-changed", path, f"multipleOf {before}", f"multipleOf {after}")
        else:
            yield _limit("multipleOf", before, after, path, tighter=before is None)
    if bool(old.get("uniqueItems")) != bool(new.get("uniqueItems")):
        tighter = bool(new.get("uniqueItems"))
        yield _limit("uniqueItems", old.get("uniqueItems"), new.get("uniqueItems"), path, tighter=tighter)


def _limit(word: str, before: object, after: object, path: str, *, tighter: bool) -> Difference:
    rule = "constraint-tightened" if tighter else "constraint-loosened"
    return Difference(
        rule,
        path,
        f"no {word}" if before is None else f"{word} {shown(before)}",
        f"no {word}" if after is None else f"{word} {shown(after)}",
    )


def _formats(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Difference]:
    for word in _SAME:
        before, after = old.get(word), new.get(word)
        if before == after:
            continue
        if before is None or after is None:
            yield _limit(word, before, after, path, tighter=before is None)
        else:
            yield Difference("format-changed", path, f"{word} {shown(before)}", f"{word} {shown(after)}")


def _refers(schema: Any) -> bool:
    """Is there a reference in it? Then two that look alike may mean different things."""
    if isinstance(schema, dict):
        return "$ref" in schema or any(_refers(part) for part in schema.values())
    return isinstance(schema, list) and any(_refers(part) for part in schema)
