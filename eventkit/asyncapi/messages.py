"""The messages of a document, each once: payload, headers, key, examples."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from eventkit import headers as h
from eventkit.asyncapi import envelope
from eventkit.asyncapi.bindings import OWN, Bindings
from eventkit.asyncapi.declared import MessageClass
from eventkit.asyncapi.envelope import Kind
from eventkit.asyncapi.errors import DocumentError
from eventkit.asyncapi.examples import NoExample, example
from eventkit.asyncapi.fitting import REF, fits
from eventkit.asyncapi.schemas import Mode, Schemas
from eventkit.asyncapi.texts import described
from eventkit.messages import Event, Routing, routing
from eventkit.replies import REPLY_TYPE
from eventkit.wire import JSON, JSON_SERIALIZER, Serializer

CORRELATION = "correlation"
"""The key of the correlation id in `components.correlationIds`."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes messages, for one broker and with the schemas of one document."""

    schemas: Schemas
    bindings: Bindings
    content_type: str

    def message(self, cls: MessageClass, source: str, serializer: Serializer | None = None) -> dict[str, Any]:
        """An event or command; `source` is who sends it in the example, and writes it with `serializer` where its
        class names none (None: the bus's)."""
        route = routing(cls)
        kind = kind_of(cls)
        content_type = self._content_type(route, serializer)
        constants = {h.TYPE: route.type, h.VERSION: str(route.version), h.CONTENT_TYPE: content_type}
        keyed = (h.SUBJECT, h.PARTITION_KEY) if route.key and _always_there(cls, route.key) else ()
        payload = self.schemas.of(cls, mode_of(cls))
        deprecated = bool(self._resolved(payload).get("deprecated"))
        found: dict[str, Any] = {
            "name": route.type,
            "title": self._resolved(payload).get("title", cls.__name__),
            **described(cls.__doc__),
            "contentType": content_type,
            "payload": payload,
            "headers": envelope.of(kind, constants, keyed),
            "correlationId": {"$ref": f"#/components/correlationIds/{CORRELATION}"},
            "tags": [{"name": name} for name in (kind, *(["deprecated"] if deprecated else []))],
            "traits": [{"$ref": f"#/components/messageTraits/{kind}"}],
            OWN: {"kind": kind, "type": route.type, "version": route.version, **_rare(cls, route)},
        }
        if deprecated:
            found["deprecated"] = True
        bindings = self.bindings.message(route.type, self._key(cls, route))
        if bindings:
            found["bindings"] = bindings
        examples = []
        for number, value in enumerate(self._examples(cls, payload), 1):
            key = _key_of(cls, route, value)
            headers = envelope.example(kind, source, constants, key)
            examples.append({"name": f"example{number}", "payload": value, "headers": headers})
        if examples:
            found["examples"] = examples
        return found

    def reply(self, cls: MessageClass, serializer: Serializer | None = None) -> dict[str, Any]:
        """The value that a command's handler returns; `serializer` is its service's."""
        route = routing(cls)
        payload = self.schemas.of(route.reply, "serialization")
        examples = list(self._replies(route, payload))
        model = isinstance(route.reply, type) and issubclass(route.reply, BaseModel)
        content_type = self._content_type(route, serializer) if model else JSON
        found = self._reply(f"Reply to {route.type}", "The handler's answer.", "ok", payload, examples, content_type)
        found[OWN]["answers"] = route.type
        return found

    def done(self) -> dict[str, Any]:
        text = "The command was carried out; its handler answers with no value."
        return self._reply("Done", text, "ok", {"type": "null"}, [None])

    def rejected(self) -> dict[str, Any]:
        text = "The command was refused for a business reason: why."
        return self._reply("Rejected", text, "rejected", {"type": "string"}, ["we do not ship there"])

    def failed(self) -> dict[str, Any]:
        text = "The command's handler failed for good: the name of the exception's class, and its text."
        payload = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}
        return self._reply("Failed", text, "failed", payload, [["ValueError", "no such postcode"]])

    def _reply(
        self, title: str, text: str, outcome: str, payload: Any, examples: list[Any], content_type: str = JSON
    ) -> dict[str, Any]:
        constants = {h.TYPE: REPLY_TYPE, h.CONTENT_TYPE: content_type, h.OUTCOME: outcome}
        headers = envelope.example("reply", "shipping", constants)
        listed = [
            {"name": f"example{number}", "payload": value, "headers": headers}
            for number, value in enumerate(examples, 1)
        ]
        return {
            "name": REPLY_TYPE,
            "title": title,
            "summary": text,
            "contentType": content_type,
            "payload": payload,
            "headers": envelope.of("reply", constants),
            "correlationId": {"$ref": f"#/components/correlationIds/{CORRELATION}"},
            "tags": [{"name": "reply"}],
            "traits": [{"$ref": "#/components/messageTraits/reply"}],
            **({"examples": listed} if listed else {}),
            OWN: {"kind": "reply", "outcome": outcome},
        }

    def _content_type(self, route: Routing, serializer: Serializer | None) -> str:
        found = route.serializer or serializer
        return self.content_type if found is None else found.content_type

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in schema:
            schema = self.schemas.components[schema["$ref"].removeprefix(REF)]
        return schema

    def _key(self, cls: MessageClass, route: Routing) -> dict[str, Any] | None:
        if route.key is None:
            return None
        name = wire_name(cls, route.key)
        field = self._resolved(self._resolved(self.schemas.of(cls, mode_of(cls))).get("properties", {}).get(name, {}))
        copied = ("format", "pattern", "enum") if field.get("type") == "string" else ()
        same = {word: field[word] for word in copied if word in field}
        return {"type": "string", "description": f"The field {name}, as text.", **same}

    def _examples(self, cls: MessageClass, payload: Mapping[str, Any]) -> Iterator[Any]:
        """The user's own, which must fit; else one of ours, if it does. As they stand on the wire."""
        given = given_examples(cls)
        for number, value in enumerate(given, 1):
            try:
                written = _as_written(cls, value)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False, include_context=False)[0]
                where = ".".join([cls.__name__, *(str(part) for part in first["loc"])])
                raise DocumentError(f"{where}: example {number} does not fit: {first['msg']}") from None
            if fits(written, payload, self.schemas.components):
                yield written
        if given:
            return
        for optional in (True, False):
            try:
                written = _as_written(cls, example(payload, self.schemas.components, optional=optional))
            except (NoExample, ValidationError, PydanticSerializationError, ValueError, TypeError):
                continue
            if fits(written, payload, self.schemas.components):
                yield written
                return

    def _replies(self, route: Routing, payload: Mapping[str, Any]) -> Iterator[Any]:
        reply: Any = route.reply
        adapter = TypeAdapter[Any](reply)
        for optional in (True, False):
            try:
                made = example(payload, self.schemas.components, optional=optional)
                written = json.loads(adapter.dump_json(adapter.validate_json(json.dumps(made)), by_alias=True))
            except (NoExample, ValidationError, PydanticSerializationError, ValueError, TypeError):
                continue
            if fits(written, payload, self.schemas.components):
                yield written
                return


def kind_of(cls: MessageClass) -> Kind:
    return "event" if issubclass(cls, Event) else "command"


def mode_of(cls: MessageClass) -> Mode:
    """Events as they stand on the wire, commands as their owner takes them."""
    return "serialization" if issubclass(cls, Event) else "validation"


def wire_name(cls: type[BaseModel], field: str) -> str:
    """What a field is called in JSON."""
    info = cls.model_fields[field]
    return info.serialization_alias or info.alias or field


def given_examples(cls: type[BaseModel]) -> list[Any]:
    """What the user wrote: model_config = ConfigDict(json_schema_extra={"examples": [...]}). DocumentError, if it is
    no JSON."""
    extra = cls.model_config.get("json_schema_extra")
    given = extra.get("examples") if isinstance(extra, dict) else None
    if not isinstance(given, list):
        return []
    try:
        json.dumps([item for item in given if not isinstance(item, cls)])
    except TypeError as error:
        raise DocumentError(f"{cls.__name__}: an example holds what is no JSON: {error}") from None
    return list(given)


def _key_of(cls: MessageClass, route: Routing, payload: Any) -> str | None:
    value = None if route.key is None else payload.get(wire_name(cls, route.key))
    return None if value is None else str(value)


def _as_written(cls: type[BaseModel], value: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a deprecated class is described like any other
        model = cls.model_validate(value) if isinstance(value, cls) else cls.model_validate_json(json.dumps(value))
        return json.loads(JSON_SERIALIZER.encode(model))


def _always_there(cls: type[BaseModel], key: str) -> bool:
    annotation = cls.model_fields[key].annotation
    return annotation is not None and type(None) not in getattr(annotation, "__args__", (annotation,))


def _rare(cls: MessageClass, route: Routing) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if route.key is not None:
        found["key"] = wire_name(cls, route.key)
    if route.upcasters:
        found["upcastsFrom"] = sorted(route.upcasters)
    return found
