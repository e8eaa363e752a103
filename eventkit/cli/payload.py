"""JSON from the prompt as a message, or what is wrong with it, field by field (pure)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import AliasChoices, AliasPath, BaseModel, ValidationError
from pydantic_core import from_json, to_json

from eventkit.cli.table import printable
from eventkit.cli.types import MessageClass
from eventkit.messages import Command, Event, routing


class Unfit(Exception):
    """This JSON is no message of the class: one line for each thing that is wrong."""

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = [printable(line) for line in lines]


def read(cls: MessageClass, text: str | bytes, key: str | None = None) -> Event | Command[Any]:
    """The message that this JSON says, its key replaced where one is given. Raises Unfit."""
    unknown: Sequence[str] = ()
    try:
        data = from_json(text)
        if isinstance(data, dict):
            unknown = _unknown(cls, data)
            if key is not None:
                data[_written(cls, _key_field(cls))] = key
                text = to_json(data)
    except ValueError as error:
        raise Unfit(f"malformed JSON: {error}{_hint(text)}") from error
    try:
        message = cls.model_validate_json(text)
    except ValidationError as error:
        items = error.errors(include_url=False, include_input=False, include_context=False)
        raise Unfit(*(_line(cls, item["loc"], item["msg"]) for item in items), *unknown) from error
    if unknown:
        raise Unfit(*unknown)
    return message


def check_key(cls: MessageClass, key: str | None) -> None:
    """Unfit where a key is given to a class that has none."""
    if key is not None:
        _key_field(cls)


def _key_field(cls: MessageClass) -> str:
    field = routing(cls).key
    if field is None:
        raise Unfit(f"--key: {cls.__name__} has no key, since its class says no key=")
    return field


def _line(cls: MessageClass, place: Sequence[int | str], said: str) -> str:
    return f"{'.'.join([cls.__name__, *map(str, place)])}: {said}"


def _hint(text: str | bytes) -> str:
    """What people meet first: quotes that the shell took."""
    said = text.decode(errors="replace") if isinstance(text, bytes) else text
    if said.lstrip()[:1] == "{" and said.strip() not in ("{", "{}") and '"' not in said:
        return """; put it in single quotes, so that the shell leaves its double quotes: '{"name": "value"}'"""
    return "; each message is one line" if said.strip() in ("{", "[") else ""


def _unknown(cls: MessageClass, data: dict[str, object]) -> Sequence[str]:
    """Fields that the class would drop without a word; a mistyped one is among them."""
    if cls.model_config.get("extra") != "ignore" or _reshapes(cls):
        return ()
    names = {name for field in cls.model_fields for name in _names(cls, field)}
    computed = {name for field, info in cls.model_computed_fields.items() for name in (field, info.alias)}
    lines = []
    for word in data:
        if word not in names and word not in computed:
            by_case = {name.lower(): name for name in sorted(names)}
            near = difflib.get_close_matches(word.lower(), by_case, n=1)
            hint = f"did you mean {by_case[near[0]]}?" if near else f"its fields: {', '.join(sorted(names)) or 'none'}"
            lines.append(f"{cls.__name__}.{word}: there is no such field; {hint}")
    return lines


def _reshapes(cls: type[BaseModel]) -> bool:
    """Does a validator of its own see the data first, which may know other names?"""
    validators = cls.__pydantic_decorators__.model_validators.values()
    return any(validator.info.mode != "after" for validator in validators)


def _names(cls: MessageClass, field: str) -> set[str]:
    """The names that a field is read by."""
    info = cls.model_fields[field]
    alias = info.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [] if alias is None else [alias]
    found = {str(choice.path[0]) if isinstance(choice, AliasPath) else choice for choice in choices}
    by_name = cls.model_config.get("populate_by_name") or cls.model_config.get("validate_by_name")
    return found | {field} if by_name or not found else found


def _written(cls: MessageClass, field: str) -> str:
    alias = cls.model_fields[field].validation_alias
    if alias is None:
        return field
    return alias if isinstance(alias, str) else min(_names(cls, field))
