"""Bodies that only those read who have the key: AES-256-GCM, by the library `cryptography`.

A serializer, and no middleware, is the room for this. Middleware runs when a body has been read already; and what is
kept on the broker, of retries and dead letters too, is the body as the serializer wrote it.
"""

import os
from collections.abc import Mapping
from typing import TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import BaseModel

from eventkit import JSON_SERIALIZER, Serializer

M = TypeVar("M", bound=BaseModel)

_NONCE = 12


class Sealed:
    """Seals what another serializer writes. The body names its key, so that keys can be changed while messages wait.

    A message whose key is not known here, or that somebody has changed, is a dead letter, `undecodable`. When the key
    is there again: `eventkit dead-letters retry`.
    """

    content_type = "application/x-sealed"

    def __init__(self, keys: Mapping[str, bytes], *, current: str, inner: Serializer | None = None) -> None:
        """`keys`: of 32 bytes, by their ids; `current` is the id of the one to write with. `inner`: None is JSON."""
        self._keys = {id_.encode(): AESGCM(key) for id_, key in keys.items()}
        self._current = current.encode()
        self._inner = inner or JSON_SERIALIZER
        if self._current not in self._keys or any(len(id_) > 255 for id_ in self._keys):
            raise ValueError(f"current={current!r} is none of the keys, or the id of one is longer than 255 bytes")

    def encode(self, message: BaseModel, /) -> bytes:
        id_, nonce = self._current, os.urandom(_NONCE)
        head = bytes([len(id_)]) + id_
        return head + nonce + self._keys[id_].encrypt(nonce, self._inner.encode(message), head)

    def decode(self, body: bytes, as_: type[M], /) -> M:
        return self._inner.decode(self._opened(body), as_)

    def data(self, body: bytes, /) -> object:
        return self._inner.data(self._opened(body))

    def _opened(self, body: bytes) -> bytes:
        end = 1 + (body[0] if body else 0)
        head, nonce, sealed = body[:end], body[end : end + _NONCE], body[end + _NONCE :]
        key = self._keys.get(head[1:])
        if key is None:
            raise ValueError(
                f"it is sealed with the key {head[1:].decode(errors='replace')!r}, which is not known here"
            )
        try:
            return key.decrypt(nonce, sealed, head)
        except (InvalidTag, ValueError) as error:
            raise ValueError("its seal is broken: it was changed, or cut, or sealed with another key") from error
