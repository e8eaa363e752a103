"""What a setting takes, and what is wrong with a value that it does not take, in words and without the value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError as UnreadableSetting

_OURS = "value_error"
"""What a validator of ours has raised: its own words say what is right."""


def explain(error: ValidationError, settings: type[BaseModel], prefix: str) -> str:
    """A sentence about each environment variable that is wrong: its name, what is wrong, what would be right."""
    return "; ".join(
        _explain(item["type"], item["msg"], item["loc"], settings, prefix)
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    )


def explain_unreadable(error: UnreadableSetting, prefix: str) -> str:
    """Of a setting that is a list, or has parts, and whose text is no JSON."""
    named = re.search(r'field "(\w+)"', str(error))
    return f"{prefix}{named[1].upper() if named else '*'}: this is no JSON; it has several parts: write them as JSON"


def _explain(kind: str, text: str, loc: Sequence[int | str], settings: type[BaseModel], prefix: str) -> str:
    name = prefix + "__".join(str(part) for part in loc).upper() if loc else f"{prefix}*"
    field = _field(settings, loc)
    if kind == _OURS:
        return f"{name}: {text.removeprefix('Value error, ')}"
    if kind == "extra_forbidden" or field is None:
        return f"{name}: there is no such setting"
    wrong, right = _wrong(kind, field), takes(field)
    default = "" if field.default is None or field.is_required() else f"; without it, {_said(field.default)} is taken"
    return f"{name}: {wrong}; write {right}{default}"


def _field(settings: type[BaseModel], loc: Sequence[int | str]) -> FieldInfo | None:
    field: FieldInfo | None = None
    model: Any = settings
    for part in loc:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            break  # inside a list or the like: its field says what it is
        field = model.model_fields.get(str(part))
        if field is None:
            return None
        model = field.annotation
    return field


def _wrong(kind: str, field: FieldInfo) -> str:
    if kind.startswith("greater_than"):
        return "this is too small"
    if kind.startswith("less_than"):
        return "this is too large"
    named = {timedelta: "this is no time", int: "this is no whole number", float: "this is no number"}
    return named.get(_plain(field.annotation), "this cannot be taken")


def takes(field: FieldInfo) -> str:
    """What may be written for it: `a whole number from 1 to 10000`."""
    plain, bounds = _plain(field.annotation), _bounds(field)
    if plain is timedelta:
        return f"a time{bounds} as PT30S or 00:00:30 (30 seconds)"
    if plain is int:
        return f"a whole number{bounds}"
    if plain is float:
        return f"a number{bounds}"
    if plain is bool:
        return "true or false"
    if get_origin(plain) is Literal:
        return _or(str(value) for value in get_args(plain))
    if isinstance(plain, type) and issubclass(plain, Enum):
        return _or(str(member.value) for member in plain)
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        return f"its parts, each as a variable of its own: {_or(f'...__{part.upper()}' for part in plain.model_fields)}"
    pattern = next((found for item in field.metadata if (found := getattr(item, "pattern", None))), None)
    if pattern is not None:
        return f"a text like {pattern}"
    return "a path" if plain is Path else "a text" if plain in (str, SecretStr) else "it as JSON"


def _plain(annotation: Any) -> Any:
    """Without its None."""
    if get_origin(annotation) in (Union, UnionType):
        rest = [arg for arg in get_args(annotation) if arg is not type(None)]
        return rest[0] if len(rest) == 1 else annotation
    return annotation


def _bounds(field: FieldInfo) -> str:
    found = {
        word: _said(limit)
        for word in ("ge", "gt", "le", "lt")
        for item in field.metadata
        if (limit := getattr(item, word, None)) is not None
    }
    least = f" from {found['ge']}" if "ge" in found else f" above {found['gt']}" if "gt" in found else ""
    most = f" to {found['le']}" if "le" in found else f" below {found['lt']}" if "lt" in found else ""
    return (
        f"{least} on" if "ge" in found and not most else f" up{most}" if "le" in found and not least else least + most
    )


def _said(value: object) -> str:
    if isinstance(value, timedelta):
        return _time(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value.value if isinstance(value, Enum) else value)


def _time(value: timedelta) -> str:
    seconds = value.total_seconds()
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= size and not seconds % size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds * 1_000:g} ms" if 0 < seconds < 1 else f"{seconds:g} s"


def _or(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
