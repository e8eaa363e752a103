"""Texts that match a regular expression, and expressions that every reader of a document understands (pure)."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from typing import Any

_LONGEST = 200
_ENDS = re.compile(r"(?<!\\)\\[AZz]")
_INLINE_FLAGS = re.compile(r"\(\?[aiLmsux-]+[:)]")


def portable(pattern: str) -> str | None:
    """The same pattern for JSON Schema, which speaks JavaScript's dialect; None: it cannot say that."""
    if _INLINE_FLAGS.search(pattern) or "(?(" in pattern or "(?#" in pattern or "(?>" in pattern:
        return None
    try:
        numbers = re.compile(pattern).groupindex if "(?P=" in pattern else {}
    except re.error:
        return None
    found = _ENDS.sub(lambda end: "^" if end[0] == "\\A" else "$", pattern)
    found = re.sub(r"\(\?P=(\w+)\)", lambda name: f"\\{numbers[name[1]]}", found)
    return re.sub(r"\(\?P?<[A-Za-z_]\w*>", "(", found)  # a name for a group is not understood everywhere


def found_in(text: str, pattern: str) -> bool:
    """Does this portable pattern match somewhere in the text? One that Python cannot read matches nothing."""
    try:
        return re.search(pattern, text, re.ASCII) is not None
    except re.error:
        return False


def matching(pattern: str) -> str | None:
    """A short text that this portable pattern matches; None: none was found."""
    try:
        parser: Any = importlib.import_module("re._parser")  # what `re` itself parses with
        text = _text(parser.parse(pattern, re.ASCII), {})
    except (ImportError, re.error, _Unknown, RecursionError, OverflowError):
        return None
    return text if len(text) <= _LONGEST and found_in(text, pattern) else None


class _Unknown(Exception):
    """A part of a pattern that is not tried."""


def _text(parts: Iterable[Any], groups: dict[int, str]) -> str:
    return "".join(_part(str(operation), value, groups) for operation, value in parts)


def _part(operation: str, value: Any, groups: dict[int, str]) -> str:
    match operation:
        case "LITERAL":
            return chr(value)
        case "NOT_LITERAL":
            return "a" if value != ord("a") else "b"
        case "ANY":
            return "a"
        case "IN":
            return _one_of(value)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, inner = value
            times = least if least else min(1, most)
            if times > _LONGEST:
                raise _Unknown
            return "".join(_text(inner, groups) for _ in range(times))
        case "SUBPATTERN":
            text = _text(value[-1], groups)
            if value[0] is not None:
                groups[value[0]] = text
            return text
        case "BRANCH":
            return _text(value[1][0], groups)
        case "GROUPREF":
            return groups.get(value, "")
        case "AT" | "ASSERT_NOT" | "ASSERT":
            return ""  # whether the whole text matches is looked at in the end
        case _:
            raise _Unknown


_CATEGORIES = {"CATEGORY_DIGIT": "7", "CATEGORY_WORD": "a", "CATEGORY_SPACE": " ", "CATEGORY_NOT_DIGIT": "a",
               "CATEGORY_NOT_SPACE": "a", "CATEGORY_NOT_WORD": "-"}  # fmt: skip


def _one_of(choices: Any) -> str:
    if str(choices[0][0]) == "NEGATE":
        for candidate in "aA1-_ ~":
            if not any(_holds(str(kind), value, candidate) for kind, value in choices[1:]):
                return candidate
        raise _Unknown
    kind, value = choices[0]
    match str(kind):
        case "LITERAL":
            return chr(value)
        case "RANGE":
            return chr(value[0])
        case "CATEGORY":
            return _CATEGORIES[str(value)]
    raise _Unknown


def _holds(kind: str, value: Any, candidate: str) -> bool:
    match kind:
        case "LITERAL":
            return bool(chr(value) == candidate)
        case "RANGE":
            return bool(value[0] <= ord(candidate) <= value[1])
        case _:
            classes = {"CATEGORY_DIGIT": r"\d", "CATEGORY_WORD": r"\w", "CATEGORY_SPACE": r"\s"}
            return re.match(classes.get(str(value), "."), candidate) is not None
