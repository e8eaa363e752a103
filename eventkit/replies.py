"""Replies: what a command's handler returns, or how it failed, as a message; and read back by its requester (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from eventkit import headers as h
from eventkit.adapter import Address, Message
from eventkit.errors import CommandFailed, CommandRejected, DeclarationError, InvalidMessage, UndecodableMessage
from eventkit.faithful import alike
from eventkit.wire import JSON, JSON_SERIALIZER, Serializer, summary

REPLY_TYPE = "eventkit.reply"

Outcome: TypeAlias = Literal["ok", "rejected", "failed"]
Body: TypeAlias = tuple[bytes, str]
"""And its content type."""

NOTHING: Body = (b"null", JSON)


@lru_cache(maxsize=1_000)
def reply_adapter(reply: Any) -> TypeAdapter[Any]:
    """How a reply of this type is written and read."""
    try:
        return TypeAdapter(reply)
    except PydanticSchemaGenerationError as error:
        raise DeclarationError(f"a reply of type {reply!r} cannot be written as JSON: {error}") from error


def value(result: object, as_: object, who: str, serializer: Serializer = JSON_SERIALIZER) -> Body:
    """What a handler returned: a model by the command's or the service's serializer, all else as JSON.

    InvalidMessage where it is not of its type, or would not read back equal.
    """
    adapter = reply_adapter(as_)
    try:
        checked = adapter.validate_python(result)
    except ValidationError as error:
        raise InvalidMessage(f"{who} returned {type(result).__name__}, which is no {as_}: {summary(error)}") from error
    except Exception as error:  # a validator may raise anything
        raise InvalidMessage(f"{who} returned {type(result).__name__}, which is no {as_}: {h.said(error)}") from error
    try:
        if serializer is not JSON_SERIALIZER and isinstance(checked, BaseModel) and isinstance(as_, type):
            return serializer.encode(checked), serializer.content_type
        body = adapter.dump_json(checked, by_alias=True)
    except Exception as error:  # a serializer may raise anything
        raise InvalidMessage(
            f"{who} returned {type(result).__name__}, which cannot be written: {h.said(error)}"
        ) from error
    if not _same(adapter, body, checked):
        raise InvalidMessage(
            f"{who} returned a {type(result).__name__} that does not read back equal from JSON, as {as_}: it holds "
            "NaN, a subclass of what is declared, or a value of an open type"
        )
    return body, JSON


def _same(adapter: TypeAdapter[Any], body: bytes, value: object) -> bool:
    try:
        return alike(value, adapter.validate_json(body))
    except Exception:  # noqa: BLE001 a validator may raise anything
        return False


def rejection(reason: str) -> Body:
    """Why a command was refused."""
    return _json(h.writable(str(reason))), JSON


def failure(error: CommandFailed) -> Body:
    """How it failed for good."""
    return _json([h.writable(str(error.type)), h.writable(str(error.message))]), JSON


def make(asked: Mapping[str, str], source: str, time: datetime, outcome: Outcome, body: Body) -> Message:
    """The reply to the request that had these headers."""
    request_id = asked.get(h.ID, "")
    correlation = asked.get(h.CORRELATION, request_id)
    said, content_type = body
    headers = {
        h.SPECVERSION: "1.0",
        h.ID: f"{request_id}.reply",
        h.SOURCE: source,
        h.TYPE: REPLY_TYPE,
        h.TIME: time.isoformat(),
        h.CONTENT_TYPE: content_type,
        h.CORRELATION: correlation,
        h.CORRELATION_ID: correlation,
        h.CAUSATION: request_id,
        h.MESSAGE_ID: f"{request_id}.reply",
        h.OUTCOME: outcome,
    }
    return Message(Address("reply", asked[h.REPLY_TO]), REPLY_TYPE, None, headers, said)


def read(reply: Message, as_: object, serializer: Serializer = JSON_SERIALIZER) -> Any:
    """The value of a reply; raises CommandRejected, CommandFailed, or UndecodableMessage for what is no reply."""
    try:
        return _read(reply, as_, serializer)
    except (CommandRejected, CommandFailed, UndecodableMessage):
        raise
    except ValidationError as error:
        raise UndecodableMessage(
            f"the reply to {reply.headers.get(h.CAUSATION)} does not fit {as_}: {summary(error)}"
        ) from error
    except Exception as error:
        raise UndecodableMessage(
            f"the reply to {reply.headers.get(h.CAUSATION)} cannot be read as {reply.headers.get(h.CONTENT_TYPE)}: "
            f"{error}"
        ) from error


def _read(reply: Message, as_: object, serializer: Serializer) -> Any:
    said = reply.headers.get(h.OUTCOME, "ok")
    body = reply.body or b"null"
    if said == "rejected":
        raise CommandRejected(str(reply_adapter(str).validate_json(body)))
    if said == "failed":
        kind, text = reply_adapter(tuple[str, str]).validate_json(body)
        raise CommandFailed(kind, text)
    if as_ is None:
        return None
    content_type = reply.headers.get(h.CONTENT_TYPE, JSON)
    if content_type == JSON:
        return reply_adapter(as_).validate_json(body)
    if content_type == serializer.content_type and isinstance(as_, type) and issubclass(as_, BaseModel):
        return serializer.decode(body, as_)
    raise UndecodableMessage(
        f"the reply to {reply.headers.get(h.CAUSATION)} is {content_type}, and this bus reads JSON and "
        f"{serializer.content_type}: give both sides the same serializer"
    )


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
