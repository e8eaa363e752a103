"""Whether a value fits a schema: the part of JSON Schema that pydantic writes (pure).

For examples and defaults, so that no document needs a validator installed. `format` is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from eventkit.asyncapi.patterns import found_in

Schema: TypeAlias = Any
"""A mapping, or true or false."""
REF = "#/components/schemas/"

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "object": (dict,),
    "array": (list,),
    "boolean": (bool,),
    "null": (type(None),),
}


def fits(value: object, schema: Schema, components: Mapping[str, Schema]) -> bool:
    """Does this JSON value fit? References lead into `components`."""
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema:
        return fits(value, components[schema["$ref"].removeprefix(REF)], components)
    return (
        _type(value, schema)
        and _values(value, schema)
        and _combined(value, schema, components)
        and (not isinstance(value, str) or _text(value, schema))
        and (isinstance(value, bool) or not isinstance(value, int | float) or _number(value, schema))
        and (not isinstance(value, list) or _array(value, schema, components))
        and (not isinstance(value, dict) or _object(value, schema, components))
    )


def _type(value: object, schema: Mapping[str, Any]) -> bool:
    wanted = schema.get("type")
    if wanted is None:
        return True
    return any(_is(value, name) for name in ([wanted] if isinstance(wanted, str) else wanted))


def _is(value: object, name: str) -> bool:
    if name == "integer":
        return isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
    if name == "number" and isinstance(value, bool):
        return False
    return isinstance(value, _TYPES.get(name, ()))


def _values(value: object, schema: Mapping[str, Any]) -> bool:
    if "const" in schema and not _same(value, schema["const"]):
        return False
    return "enum" not in schema or any(_same(value, one) for one in schema["enum"])


def _same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _combined(value: object, schema: Mapping[str, Any], components: Mapping[str, Schema]) -> bool:
    if not all(fits(value, part, components) for part in schema.get("allOf", ())):
        return False
    if "anyOf" in schema and not any(fits(value, part, components) for part in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(fits(value, part, components) for part in schema["oneOf"]) != 1:
        return False
    return "not" not in schema or not fits(value, schema["not"], components)


def _text(value: str, schema: Mapping[str, Any]) -> bool:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf):
        return False
    return "pattern" not in schema or found_in(value, schema["pattern"])


def _number(value: float, schema: Mapping[str, Any]) -> bool:
    if not schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf):
        return False
    if not schema.get("exclusiveMinimum", -math.inf) < value < schema.get("exclusiveMaximum", math.inf):
        return False
    step = schema.get("multipleOf")
    return step is None or math.isclose(value / step, round(value / step), rel_tol=0, abs_tol=1e-9)


def _array(value: list[Any], schema: Mapping[str, Any], components: Mapping[str, Schema]) -> bool:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf):
        return False
    if schema.get("uniqueItems") and any(_same(a, b) for n, a in enumerate(value) for b in value[:n]):
        return False
    items = schema.get("items", True)
    if isinstance(items, list):
        rest = schema.get("additionalItems", True)
        places = [items[n] if n < len(items) else rest for n in range(len(value))]
    else:
        places = [items] * len(value)
    return all(fits(item, place, components) for item, place in zip(value, places, strict=True))


def _object(value: dict[str, Any], schema: Mapping[str, Any], components: Mapping[str, Schema]) -> bool:
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", math.inf):
        return False
    if any(name not in value for name in schema.get("required", ())):
        return False
    properties: Mapping[str, Schema] = schema.get("properties", {})
    patterns: Mapping[str, Schema] = schema.get("patternProperties", {})
    names = schema.get("propertyNames", True)
    rest = schema.get("additionalProperties", True)
    for name, item in value.items():
        places = [properties[name]] if name in properties else []
        places += [part for pattern, part in patterns.items() if found_in(name, pattern)]
        if not all(fits(item, place, components) for place in places or [rest]) or not fits(name, names, components):
            return False
    return True
