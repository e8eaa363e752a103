"""What a schema says about the values of one type: which, how large, in which form (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eventkit.asyncapi.alternatives import listed
from eventkit.asyncapi.changes import Difference, shown

_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "x-maxDigits", "x-decimalPlaces")
_SAME = ("pattern", "format", "contentEncoding", "contentMediaType", "not", "if", "then", "else", "contains")


def values(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Difference]:
    before, after = listed(old), listed(new)
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


def limits(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Difference]:
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


def formats(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Difference]:
    for word in _SAME:
        before, after = old.get(word), new.get(word)
        if before == after:
            continue
        if before is None or after is None:
            yield _limit(word, before, after, path, tighter=before is None)
        else:
            yield Difference("format-changed", path, f"{word} {shown(before)}", f"{word} {shown(after)}")
