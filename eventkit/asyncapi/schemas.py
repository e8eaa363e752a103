"""Payload schemas: pydantic's, in the dialect that AsyncAPI speaks.

Pydantic writes JSON Schema 2020-12; a Schema Object of AsyncAPI 3 is a superset of draft-07. An event is described as
it stands on the wire (serialisation), a command as its owner takes it (validation), a reply as it is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUndefinedAnnotation
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from eventkit.asyncapi.errors import DocumentError
from eventkit.asyncapi.fitting import REF, Schema, fits
from eventkit.asyncapi.patterns import portable as portable_pattern

Mode: TypeAlias = Literal["validation", "serialization"]

_ERRORS = (
    PydanticInvalidForJsonSchema,
    PydanticSchemaGenerationError,
    PydanticUndefinedAnnotation,
    PydanticUserError,
)
_LISTS = ("allOf", "anyOf", "oneOf")
_MAPS = ("properties", "patternProperties")
_SINGLE = ("additionalProperties", "additionalItems", "propertyNames", "not", "contains", "if", "then", "else")


_LIMITS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "max_digits": "x-maxDigits",
    "decimal_places": "x-decimalPlaces",
}
"""Of a Decimal: pydantic's names, and the document's."""


class Wanted(NamedTuple):
    """A type to describe."""

    name: str
    """What an error calls it."""
    type: Any
    mode: Mode


class Schemas(NamedTuple):
    found: Mapping[tuple[int, Mode], dict[str, Any]]
    """By the type's identity: not every annotation can be hashed."""
    components: Mapping[str, dict[str, Any]]

    def of(self, type_: Any, mode: Mode) -> dict[str, Any]:
        """The schema of a type that was asked for; a model's is a reference into the components."""
        return self.found[id(type_), mode]


class _Generator(GenerateJsonSchema):
    # What pydantic would warn of (a default that is no JSON) is left out of the document; that is no one's mistake.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 pydantic's own

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> dict[str, Any]:
        """Text, and a number where one is accepted; the same under every release of pydantic.

        Bounds stand beside the text too, where validators pass them over: people and the check read them.
        """
        limits = {word: _plain(schema[name]) for name, word in _LIMITS.items() if schema.get(name) is not None}  # type: ignore[literal-required]
        text = {"type": "string", "format": "decimal", **limits}
        if self.mode == "serialization":
            return text
        return {"anyOf": [{"type": "number", **limits}, text]}


def describe(wanted: Iterable[Wanted]) -> Schemas:
    """The schemas of all these together, so that what they share stands once. DocumentError names what has none."""
    items = list({(id(item.type), item.mode): item for item in wanted}.values())
    try:
        found, components = _generate(items)
    except _ERRORS:
        for item in items:
            _explain(item)
        raise
    definitions = components.get("$defs", {})
    portable_components = {name: portable(schema) for name, schema in definitions.items()}
    described = {(key, mode): portable(schema) for (key, mode), schema in found.items()}
    for schema in (*portable_components.values(), *described.values()):
        _keep_what_fits(schema, portable_components)
    by_type: dict[tuple[int, Mode], dict[str, Any]] = {
        (id(item.type), item.mode): described[place, item.mode] for place, item in enumerate(items)
    }
    return Schemas(by_type, portable_components)


def _generate(items: list[Wanted]) -> tuple[Mapping[tuple[int, Mode], Any], dict[str, Any]]:
    inputs: list[tuple[int, Mode, TypeAdapter[Any]]] = [
        (place, item.mode, TypeAdapter[Any](item.type)) for place, item in enumerate(items)
    ]
    return TypeAdapter.json_schemas(inputs, ref_template=REF + "{model}", schema_generator=_Generator)


def _explain(item: Wanted) -> None:
    """Raise the DocumentError for an item that cannot be described; nothing for others."""
    try:
        _generate([item])
    except _ERRORS as error:
        where, why = item.name, error
        for field, annotation in _fields(item.type):
            try:
                _generate([Wanted(field, annotation, item.mode)])
            except _ERRORS as found:
                where, why = f"{item.name}.{field}", found
                break
        text = str(why).partition("\n")[0].rstrip(".")
        raise DocumentError(
            f"{where} cannot be described: {text}; give it a schema with Annotated[..., WithJsonSchema({{...}})]"
        ) from error


def _fields(type_: Any) -> list[tuple[str, Any]]:
    if isinstance(type_, type) and issubclass(type_, BaseModel):
        return [(name, field.annotation) for name, field in type_.model_fields.items()]
    return []


def _plain(limit: Any) -> float:
    return int(limit) if float(limit).is_integer() else float(limit)


def portable(schema: Schema) -> Schema:
    """A schema of JSON Schema 2020-12, as pydantic writes it, in AsyncAPI's dialect."""
    if not isinstance(schema, dict):
        return schema
    found = _inside({word: value for word, value in schema.items() if word not in ("$defs", "discriminator")})
    _tuples(found)
    if "pattern" in found:
        pattern = portable_pattern(found.pop("pattern"))
        if pattern is not None:
            found["pattern"] = pattern
    if "required" in found:
        found["required"] = sorted(found["required"])
    if "$ref" in found and len(found) > 1:
        # in draft-07 whatever stands beside a reference is ignored
        found["allOf"] = [{"$ref": found.pop("$ref")}, *found.get("allOf", ())]
    return found


def _inside(schema: dict[str, Any]) -> dict[str, Any]:
    inner: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys((*_LISTS, "prefixItems"), lambda parts: [portable(part) for part in parts]),
        **dict.fromkeys(_MAPS, lambda parts: {name: portable(part) for name, part in parts.items()}),
        **dict.fromkeys((*_SINGLE, "items"), portable),
    }
    return {word: inner[word](value) if word in inner else value for word, value in schema.items()}


def _tuples(schema: dict[str, Any]) -> None:
    """A tuple's places: `prefixItems` and `items` of 2020-12 are `items` and `additionalItems` of draft-07."""
    if "prefixItems" in schema:
        rest = schema.get("items", schema.get("maxItems") != len(schema["prefixItems"]))
        schema["items"] = schema.pop("prefixItems")
        if rest is not True:
            schema["additionalItems"] = rest
    elif schema.get("items") is False:
        schema["maxItems"] = 0


def _keep_what_fits(schema: Schema, components: Mapping[str, Schema]) -> None:
    """Take out examples and defaults that do not fit the schema they stand in: on the wire they look different."""
    if not isinstance(schema, dict):
        return
    for word in _LISTS:
        for part in schema.get(word, ()):
            _keep_what_fits(part, components)
    for word in _MAPS:
        for part in schema.get(word, {}).values():
            _keep_what_fits(part, components)
    items = schema.get("items")
    for part in (*(items if isinstance(items, list) else [items]), *(schema.get(word) for word in _SINGLE)):
        _keep_what_fits(part, components)
    bare = {word: value for word, value in schema.items() if word not in ("examples", "default")}
    if "examples" in schema:
        given = schema.pop("examples")
        fitting = [item for item in _as_on_the_wire(given, bare) if fits(item, bare, components)]
        if fitting:
            schema["examples"] = fitting
    if "default" in schema and not fits(schema["default"], bare, components):
        del schema["default"]


def _as_on_the_wire(given: object, schema: Mapping[str, Any]) -> list[Any]:
    """Users write the example of a Decimal as a number; on the wire it is text."""
    if not isinstance(given, list):
        return []
    if schema.get("type") == "string":
        return [str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item for item in given]
    return given
