"""Sayable: whether a class is one whose messages JSON can say, as far as its declaration tells (pure).

Refused are secrets, which pydantic writes as asterisks, and fields that are not written at all, or under another name
than they are read by.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    AliasChoices,
    BaseModel,
    PlainSerializer,
    Secret,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    TypeAdapter,
    WrapSerializer,
)
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUndefinedAnnotation
from pydantic.fields import FieldInfo

from eventkit.errors import DeclarationError

_SECRETS = (SecretStr, SecretBytes, Secret)
_SERIALIZERS: tuple[type[Any], ...] = (
    PlainSerializer,
    WrapSerializer,
    typing.cast("type[Any]", SerializeAsAny),  # for type checkers it is no class
)


def check_declared(cls: type[BaseModel]) -> None:
    """DeclarationError for a class whose messages could never read back equal."""
    _check_model(cls, cls.__name__, set())


def check_reply(hint: Any, what: str) -> None:
    """The same for any type, such as a reply's; it must be one that JSON can say."""
    _check_type(hint, what, set())
    try:
        TypeAdapter[Any](hint).json_schema(mode="serialization")
    except PydanticUndefinedAnnotation:
        return  # not known yet
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema) as error:
        why = str(error).partition("\n")[0]
        raise DeclarationError(
            f"{what} cannot be written as JSON ({why}): make it a pydantic model, or a type that pydantic knows"
        ) from error


def _check_model(cls: type[BaseModel], what: str, seen: set[type]) -> None:
    if cls in seen or not cls.__pydantic_complete__:
        return
    seen.add(cls)
    written_by_own = own_serializers(cls)
    if "*" in written_by_own or cls.__pydantic_decorators__.model_serializers:
        return
    for name, field in cls.model_fields.items():
        where = f"{what}.{name}"
        if field.exclude:
            raise DeclarationError(
                f"{where} has exclude=True: it would be lost on the way; leave that out, or the field"
            )
        _check_names(cls, name, field, where)
        if name not in written_by_own and not said_how(field.metadata):
            _check_type(field.annotation, where, seen)


def _check_names(cls: type[BaseModel], name: str, field: FieldInfo, where: str) -> None:
    """One name on the wire: the one under which a field is written must be one by which it is read."""
    config = cls.model_config
    written = field.serialization_alias or name
    alias = field.validation_alias
    read: set[str] = set()
    if config.get("validate_by_alias", True):
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        read |= {choice for choice in choices if isinstance(choice, str)}
    if alias is None or config.get("populate_by_name") or config.get("validate_by_name"):
        read.add(name)
    if written not in read:
        raise DeclarationError(
            f"{where} is written as {written!r}, but read as {', '.join(map(repr, sorted(read))) or 'nothing'}: "
            "give it one alias= for both, or AliasChoices that name it"
        )


def _check_type(hint: Any, where: str, seen: set[type]) -> None:
    hint = plain(hint)
    origin = get_origin(hint)
    if origin is Annotated:
        if not said_how(hint.__metadata__):
            _check_type(get_args(hint)[0], where, seen)
    elif is_a(origin or hint, _SECRETS):
        raise DeclarationError(
            f"{where} is a secret, and would be written as asterisks: send a reference to it instead, or say with a "
            "field_serializer how it is to be written"
        )
    elif is_a(hint, (BaseModel,)):
        _check_model(hint, where, seen)
    elif origin is not None and origin is not Literal:
        for argument in get_args(hint):
            _check_type(argument, where, seen)


def own_serializers(cls: type[BaseModel]) -> set[str]:
    """The fields that a `field_serializer` writes; `*`: all."""
    return {name for found in cls.__pydantic_decorators__.field_serializers.values() for name in found.info.fields}


def plain(hint: Any) -> Any:
    """Without the names that types were given."""
    while isinstance(hint, typing.NewType) or type(hint).__name__ == "TypeAliasType":
        hint = hint.__supertype__ if isinstance(hint, typing.NewType) else hint.__value__
    return hint


def is_a(hint: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(hint, type) and get_origin(hint) is None and issubclass(hint, kinds)


def said_how(metadata: Iterable[object]) -> bool:
    """Is there a serializer of one's own?"""
    return any(isinstance(item, _SERIALIZERS) for item in metadata)
