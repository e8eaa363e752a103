"""Faithful: a message that would not read back equal from its JSON is not written (pure).

NaN and infinity would become null; of an instance of a subclass only the fields of its base would be written; and an
open type (`Any`, a union, a serializer of one's own) lets anything change.
"""

from __future__ import annotations

import ipaddress
import math
import types
from collections.abc import Callable, Collection, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, RootModel, ValidationError

from eventkit.sayable import check_declared, is_a, own_serializers, plain, said_how

Check: TypeAlias = Callable[[Any], "str | None"]
"""Says where in a value something would change, and why; None: nothing would."""

_CERTAIN = (str, int, bytes, Decimal, datetime, date, time, timedelta, UUID, Enum, PurePath, type(None))
_ADDRESSES = (ipaddress.IPv4Address, ipaddress.IPv6Address)
_KEYS = (str, int, UUID)


class Faith:
    """What a class of messages must be asked, each time one is written."""

    def __init__(self, cls: type[BaseModel]) -> None:
        check_declared(cls)  # what was not known yet when it was declared
        compiler = _Compiler()
        self._cls = cls
        self.check = compiler.fields(cls)
        """Says what of a message its JSON cannot say. None: it can say all."""
        self.open = compiler.open
        """Can only reading back tell?"""

    def reads_back(self, message: BaseModel, body: bytes) -> str | None:
        """What of a message its JSON does not say; None: it is equal."""
        try:
            back = self._cls.__pydantic_validator__.validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = "".join(f".{part}" for part in first["loc"])
            return f"{where} is written as JSON that does not fit the class: {first['msg']}"
        return None if back == message else _difference(message, back)


class _Compiler:
    """Makes the checks of a class, and finds out whether they are enough."""

    def __init__(self) -> None:
        self.open = False
        """Is there a type of which only reading back can tell?"""
        self._models: dict[type[BaseModel], _Model] = {}

    def fields(self, cls: type[BaseModel]) -> Check | None:
        """The check of a model whose class is known."""
        if (
            cls.model_config.get("extra") == "allow"
            or any(word.startswith(("ser_json_", "val_json_")) for word in cls.model_config)
            or issubclass(cls, RootModel)
            or cls.__pydantic_decorators__.model_serializers
        ):
            self.open = True
            return None
        own = own_serializers(cls)
        checks: list[tuple[str, Check]] = []
        for name, field in cls.model_fields.items():
            if own & {name, "*"} or said_how(field.metadata):
                self.open = True
            elif (check := self._of(field.annotation)) is not None:
                checks.append((name, check))
        return _fields(checks) if checks else None

    def _of(self, hint: Any) -> Check | None:
        hint = plain(hint)
        origin, arguments = get_origin(hint), get_args(hint)
        if hint is None or origin is Literal or is_a(hint, (*_CERTAIN, *_ADDRESSES)):
            return None
        if hint is float:
            return _finite
        if is_a(hint, (BaseModel,)):
            return self._model(hint)
        if origin in (Union, types.UnionType):
            some = [argument for argument in arguments if argument is not type(None)]
            if len(some) == 1:
                check = self._of(some[0])
                return None if check is None else _optional(check)
        elif origin is Annotated and not said_how(hint.__metadata__):
            return self._of(arguments[0])
        elif origin in (list, set, frozenset) or (origin is tuple and arguments[1:] == (...,)):
            check = self._of(arguments[0])
            return None if check is None else _each(check)
        elif origin is dict and is_a(arguments[0], _KEYS):
            check = self._of(arguments[1])
            return None if check is None else _each_value(check)
        self.open = True
        return None

    def _model(self, cls: type[BaseModel]) -> Check:
        known = self._models.get(cls)
        if known is None:
            known = self._models[cls] = _Model(cls)  # known before its fields are: it may hold itself
            known.check = self.fields(cls)
        return known


class _Model:
    """An instance of exactly this class."""

    def __init__(self, cls: type[BaseModel]) -> None:
        self.cls = cls
        self.check: Check | None = None

    def __call__(self, value: Any) -> str | None:
        if type(value) is not self.cls:
            return (
                f" is a {type(value).__name__}, of which only what {self.cls.__name__} declares would be written; "
                "name its class in the annotation, in a union"
            )
        return None if self.check is None else self.check(value)


def _fields(checks: Iterable[tuple[str, Check]]) -> Check:
    checks = tuple(checks)

    def check(model: Any) -> str | None:
        for name, asks in checks:
            if (why := asks(getattr(model, name))) is not None:
                return f".{name}{why}"
        return None

    return check


def _finite(value: Any) -> str | None:
    return None if math.isfinite(value) else f" is {value}, which JSON cannot say"


def _optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _each(check: Check) -> Check:
    if isinstance(check, _Model):
        cls, model = check.cls, check

        def all_of(values: Collection[Any]) -> str | None:
            asks = model.check
            for at, value in enumerate(values):
                why = asks and asks(value) if type(value) is cls else model(value)
                if why is not None:
                    return f"[{at}]{why}"
            return None

        return all_of

    def each(values: Collection[Any]) -> str | None:
        for at, value in enumerate(values):
            if (why := check(value)) is not None:
                return f"[{at}]{why}"
        return None

    return each


def _each_value(check: Check) -> Check:
    def each(values: dict[Any, Any]) -> str | None:
        for key, value in values.items():
            if (why := check(value)) is not None:
                return f"[{key!r}]{why}"
        return None

    return each


def alike(sent: Any, read: Any) -> bool:
    """Are they equal, but for tuples that come back as lists where the annotation allows both?"""
    if sent == read:
        return True
    if isinstance(sent, list | tuple) and isinstance(read, list | tuple):
        return len(sent) == len(read) and all(map(alike, sent, read))
    if isinstance(sent, dict) and isinstance(read, dict):
        return sent.keys() == read.keys() and all(alike(value, read[key]) for key, value in sent.items())
    return isinstance(sent, BaseModel) and type(sent) is type(read) and _difference(sent, read) is None


def _difference(message: BaseModel, back: BaseModel) -> str | None:
    """Which field changes, without its value: that may be secret."""
    if not alike(message.model_extra, back.model_extra):
        return " holds extra fields that would not read back as they are"
    for name in type(message).model_fields:
        sent, read = getattr(message, name), getattr(back, name)
        if not alike(sent, read):
            changed = "" if type(sent) is type(read) else f", from {type(sent).__name__} to {type(read).__name__}"
            return f".{name} would not read back as it is{changed}: annotate it with its exact type"
    return None
