"""Passwords, certificates and keys from files; one that cannot be used is named, with its variable."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from pydantic import SecretStr

import eventkit
from eventkit import SettingsError
from eventkit.security import Credentials, Tls

SECRET = "hunter2-and-more"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("EVENTKIT_"):
            monkeypatch.delenv(name)


def test_a_password_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    assert Credentials(password_file=file).secret() == SECRET
    assert Credentials().secret() is None
    assert Credentials(password=SecretStr("")).secret() == ""


def test_certificates_and_keys_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    loaded = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    locked = serialization.BestAvailableEncryption(SECRET.encode())
    as_pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    key.write_bytes(loaded.private_bytes(*as_pem, locked))
    no = tmp_path / "no"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"key_file": key}, "TLS__KEY_FILE: there is a key and no certificate: set TLS__CERT_FILE too"),
        (
            {"cert_file": certificate, "key_file": tmp_path / "no"},
            f"TLS__KEY_FILE: cannot use {tmp_path / 'no'}: No such",
        ),
        ({"cert_file": no}, f"TLS__CERT_FILE: cannot use {no}: No such"),
        ({"cert_file": certificate, "key_file": key}, "TLS__CERT_FILE and TLS__KEY_FILE: cannot use"),
    ]
    for settings, said in wrong:
        with pytest.raises(SettingsError, match=re.escape(said)):
            Tls(**settings).context()
    Tls(cert_file=certificate, key_file=key, key_password=SecretStr(SECRET)).context()
    assert Tls().context().check_hostname
    assert not Tls(check_hostname=False).context().check_hostname
    assert SECRET not in repr(Tls(key_password=SecretStr(SECRET)))


FILES = [
    ("redis", "rediss://localhost", "TLS__CA_FILE"),
    ("redis", "redis://localhost", "CREDENTIALS__PASSWORD_FILE"),
    ("redis", "redis+sentinel://localhost/main", "SENTINEL__PASSWORD_FILE"),
    ("nats", "tls://localhost", "TLS__CA_FILE"),
    ("nats", "nats://ada@localhost", "CREDENTIALS__PASSWORD_FILE"),
    ("nats", "nats://localhost", "CREDENTIALS__CREDS_FILE"),
    ("nats", "nats://localhost", "CREDENTIALS__NKEY_SEED_FILE"),
    ("rabbit", "amqps://localhost", "TLS__CA_FILE"),
    ("rabbit", "amqp://localhost", "CREDENTIALS__PASSWORD_FILE"),
    ("kafka", "kafka+ssl://localhost", "TLS__CA_FILE"),
    ("kafka", "kafka://ada@localhost", "CREDENTIALS__PASSWORD_FILE"),
]


WRONG = [("missing", *one, None) for one in FILES] + [
    ("unfit", *one, b"\xff no certificate") for one in FILES if not one[2].endswith(("CREDS_FILE", "SEED_FILE"))
]  # those are read by the client, when it connects


@pytest.mark.parametrize(
    ("broker", "url", "variable", "content"),
    [one[1:] for one in WRONG],
    ids=["-".join((one[0], one[1], one[3])) for one in WRONG],
)
def test_a_file_that_cannot_be_used_is_named_with_its_variable(
    broker: str, url: str, variable: str, content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "a file"
    if content is not None:
        file.write_bytes(content)
    name = f"EVENTKIT_{broker.upper()}__{variable}"
    monkeypatch.setenv(name, str(file))

    async def open_it() -> None:
        async with asyncio.timeout(20), eventkit.connect(broker, url):
            pass

    with pytest.raises(SettingsError, match=rf"^{name}: cannot (use|read) {file}: ") as raised:
        asyncio.run(open_it())
    assert "xff" not in f"{raised.value!r} {raised.value.__cause__!r}"
