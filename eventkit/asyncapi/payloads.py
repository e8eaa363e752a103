"""Two payload schemas compared: what has become narrower, what wider (pure).

References are followed on both sides, so that neither the names of components nor their places matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eventkit.asyncapi.alternatives import Resolve, choices, flat, matched
from eventkit.asyncapi.changes import Difference, shown, type_of
from eventkit.asyncapi.constraints import formats, limits, values

_TEXTS = ("title", "description", "examples", "deprecated", "$comment", "externalDocs", "readOnly", "writeOnly")


def differences(old: Any, new: Any, of_old: Resolve, of_new: Resolve) -> list[Difference]:
    """All differences, in the order of the fields."""
    walk = _Walk(of_old, of_new)
    return list(dict.fromkeys(walk.compare(old, new, "")))


class _Walk:
    def __init__(self, of_old: Resolve, of_new: Resolve) -> None:
        self._of_old = of_old
        self._of_new = of_new
        self._open: set[tuple[int, int]] = set()
        self._single_open: set[tuple[int, int]] = set()
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
        """`flat`, the same object each time, by which a model that holds itself is recognised."""
        schema = resolve(schema)
        if id(schema) not in self._flattened:
            self._flattened[id(schema)] = (schema, flat(schema, resolve))
        return self._flattened[id(schema)][1]

    def _opened(self, old: dict[str, Any], new: dict[str, Any], path: str) -> Iterator[Difference]:
        if any(old.get(word) != new.get(word) for word in _TEXTS):
            yield Difference("text-changed", path)
        if "default" in old and old.get("default") != new.get("default", old["default"]):
            yield Difference("default-changed", path, shown(old["default"]), shown(new.get("default")))
        before, after = choices(old, self._of_old), choices(new, self._of_new)
        if len(before) == len(after) == 1:
            yield from self._single(before[0], after[0], path)
        else:
            yield from self._several(before, after, path)

    def _several(self, before: list[Any], after: list[Any], path: str) -> Iterator[Difference]:
        pairs, gone, come = matched(before, after)
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
        """Two schemas of one type each."""
        pair = (id(old), id(new))
        if pair in self._single_open:  # among the alternatives of a field of itself
            return
        self._single_open.add(pair)
        yield from self._typed(old, new, path)
        self._single_open.discard(pair)

    def _typed(self, old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Difference]:
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
        yield from values(old, new, path)
        yield from limits(old, new, path)
        yield from formats(old, new, path)
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


def _refers(schema: Any) -> bool:
    """Is there a reference in it? Then two that look alike may mean different things."""
    if isinstance(schema, dict):
        return "$ref" in schema or any(_refers(part) for part in schema.values())
    return isinstance(schema, list) and any(_refers(part) for part in schema)


def _needed(schema: Mapping[str, Any]) -> set[str]:
    """The fields that a reader insists on: not those that are computed when it is written."""
    fields = schema.get("properties", {})
    computed = {name for name, field in fields.items() if isinstance(field, dict) and field.get("readOnly")}
    return set(schema.get("required", ())) - computed
