"""A NATS server in operator mode: who may come in is signed, and said by a credentials file."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import nkeys

_ANY: dict[str, int | bool] = {
    **dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1),
    **dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1),
    "wildcards": True,
}


class Signer(NamedTuple):
    """A pair of keys, and what it says of others."""

    seed: bytes
    public: str

    def of(self, subject: Signer, kind: str, **claims: object) -> str:
        """A JWT: this one says so of the subject."""
        said = {
            "jti": os.urandom(8).hex(),
            "iat": int(time.time()),
            "iss": self.public,
            "sub": subject.public,
            "name": kind,
            "nats": {"type": kind, "version": 2, **claims},
        }
        signed = f"{_text({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_text(said)}"
        return f"{signed}.{_base64(nkeys.from_seed(bytearray(self.seed)).sign(signed.encode()))}"


class Operator:
    """Runs one server with one account, which has JetStream."""

    def __init__(self) -> None:
        self._operator, self._account, self._system = map(
            _signer, (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_ACCOUNT)
        )

    def settings(self) -> Mapping[str, str]:
        """Of the server."""
        operator, account = self._operator, self._account
        accounts = {account.public: _ANY, self._system.public: {"subs": -1, "conn": -1}}
        signed = {
            public: operator.of(Signer(b"", public), "account", limits=limits) for public, limits in accounts.items()
        }
        preload = ", ".join(f"{public}: {jwt}" for public, jwt in signed.items())
        return {
            "operator": operator.of(operator, "operator"),
            "system_account": self._system.public,
            "resolver": "MEMORY",
            "resolver_preload": f"{{ {preload} }}",
        }

    def credentials(self, *, forged: bool = False) -> tuple[str, str]:
        """The text of a credentials file of a new user, and the seed in it, which is secret."""
        user = _signer(nkeys.PREFIX_BYTE_USER)
        jwt = self._account.of(user, "user", subs=-1, data=-1, payload=-1)
        if forged:  # the signature no longer is of what is said
            jwt = f"{jwt[:-8]}{'A' * 8}"
        seed = user.seed.decode()
        parts = (("NATS USER JWT", jwt), ("USER NKEY SEED", seed))
        return "\n".join(f"-----BEGIN {name}-----\n{said}\n------END {name}------\n" for name, said in parts), seed


def _signer(prefix: int) -> Signer:
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    return Signer(seed, nkeys.from_seed(bytearray(seed)).public_key.decode())


def _text(said: Mapping[str, Any]) -> str:
    return _base64(json.dumps(said).encode())


def _base64(said: bytes) -> str:
    return base64.urlsafe_b64encode(said).rstrip(b"=").decode()
