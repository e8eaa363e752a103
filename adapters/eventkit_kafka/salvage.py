"""Reading what aiokafka cannot: records whose headers' names are no UTF-8.

Kafka looks into no header, so any client can write such a name; aiokafka then fails on the whole batch, for ever.
Here one batch is fetched and read by hand, and names that are no text are left out, as values are.
"""

from __future__ import annotations

import struct
from typing import Any

from aiokafka import TopicPartition  # type: ignore[import-untyped]
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode  # type: ignore[import-untyped]
from aiokafka.errors import for_code  # type: ignore[import-untyped]
from aiokafka.protocol.fetch import FetchRequest  # type: ignore[import-untyped]
from aiokafka.record.util import decode_varint  # type: ignore[import-untyped]
from aiokafka.structs import ConsumerRecord  # type: ignore[import-untyped]

_HEADER = struct.Struct(">qiibIhiqqqhii")  # a record batch, magic 2
_AFTER_LENGTH = 12
_UNPACK = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}
_CONTROL = 0x20
_COMMITTED = 1
_BYTES = 1 << 20


async def salvage(client: Any, tp: TopicPartition, offset: int) -> tuple[list[Any], int]:
    """The records of the batch that holds this offset, from there on, and the offset after the batch."""
    request = FetchRequest(500, 1, _BYTES, _COMMITTED, [(tp.topic, [(tp.partition, offset, _BYTES)])])
    response = await client.send(client.cluster.leader_for_partition(tp), request)
    for _, partitions in response.topics:
        for _, code, _, *rest in partitions:
            if code:
                raise for_code(code)(tp)
            return parse(bytes(rest[-1]), tp, offset)
    return [], offset


def parse(data: bytes, tp: TopicPartition, offset: int) -> tuple[list[Any], int]:
    """The same, of bytes as they were fetched (pure)."""
    at = 0
    while at + _HEADER.size <= len(data):
        base, length, _, _, _, attributes, last, first_time, _, _, _, _, count = _HEADER.unpack_from(data, at)
        end, following = at + _AFTER_LENGTH + length, base + last + 1
        if end > len(data):
            break
        if following > offset:
            if attributes & _CONTROL:
                return [], following
            body = data[at + _HEADER.size : end]
            packed = attributes & 7
            buffer = bytearray(_UNPACK[packed](body) if packed else body)
            return [r for r in _records(buffer, tp, base, first_time, count) if r.offset >= offset], following
        at = end
    return [], offset


def _records(buffer: bytearray, tp: TopicPartition, base: int, first_time: int, count: int) -> list[Any]:
    records = []
    at = 0
    for _ in range(count):
        length, at = decode_varint(buffer, at)
        end = at + length
        time_delta, at = decode_varint(buffer, at + 1)  # after the attributes, of which there are none
        offset_delta, at = decode_varint(buffer, at)
        key, at = _bytes(buffer, at)
        value, at = _bytes(buffer, at)
        headers_count, at = decode_varint(buffer, at)
        headers = []
        for _ in range(headers_count):
            name, at = _bytes(buffer, at)
            content, at = _bytes(buffer, at)
            try:
                headers.append(((name or b"").decode(), content))
            except UnicodeDecodeError:
                continue
        records.append(
            ConsumerRecord(
                tp.topic,
                tp.partition,
                base + offset_delta,
                first_time + time_delta,
                0,
                key,
                value,
                None,
                len(key or b""),
                len(value or b""),
                tuple(headers),
            )
        )
        at = end
    return records


def _bytes(buffer: bytearray, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(buffer, at)
    return (None, at) if length < 0 else (bytes(buffer[at : at + length]), at + length)
