"""Avro: a schema of its own, agreed between teams and languages, and no field names on the wire.

A body is Avro's *single-object encoding*: two marker bytes, the fingerprint of the schema it was written with, the
data. So a reader that knows the older schemas reads what was written with them, by Avro's own rules of resolution. With
a schema registry, it is another number in the head, and another place to look it up.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import fastavro
from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)

_MARKER = b"\xc3\x01"
_HEAD = len(_MARKER) + 8

Schema = Mapping[str, Any]


class Avro:
    """For one class: written with `schema`, read also where it was written with one of `older`."""

    content_type = "application/avro"

    def __init__(self, schema: Schema, *, older: Sequence[Schema] = ()) -> None:
        self._schema = fastavro.parse_schema(dict(schema))
        known = [self._schema, *(fastavro.parse_schema(dict(one)) for one in older)]
        self._known = {_fingerprint(one): one for one in known}
        self._mark = _MARKER + _fingerprint(self._schema)

    def encode(self, message: BaseModel, /) -> bytes:
        written = io.BytesIO()
        written.write(self._mark)
        # strict: a field that only one of class and schema has is an error, and not lost
        fastavro.schemaless_writer(written, self._schema, message.model_dump(by_alias=True), strict=True)
        return written.getvalue()

    def decode(self, body: bytes, as_: type[M], /) -> M:
        return as_.model_validate(self.data(body))

    def data(self, body: bytes, /) -> Any:
        writer = self._known.get(body[len(_MARKER) : _HEAD])
        if body[: len(_MARKER)] != _MARKER or writer is None:
            raise ValueError("it is not in Avro's single-object encoding, or of a schema that is not known here")
        return fastavro.schemaless_reader(io.BytesIO(body[_HEAD:]), writer, self._schema)


def _fingerprint(schema: Any) -> bytes:
    """As it stands on the wire: the number with its lowest byte first, which is how fastavro shows it."""
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    return bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
