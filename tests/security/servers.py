"""Brokers that speak TLS and know their users, with certificates made on the spot."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from eventkit.testing.brokers import Broker, provide
from eventkit.testing.brokers.process import free_port

USER, POOR, ADMIN = "shop", "poor", "admin"
"""One who may do all, one who may log in and do next to nothing, and one whom no service uses."""


@dataclass
class Papers:
    """Certificates for `localhost` alone, and who may log in with what."""

    folder: Path
    secret: str = field(default_factory=lambda: f"Geheim/{secrets.token_hex(12)}", repr=False)

    def __post_init__(self) -> None:
        authority, stranger = trustme.CA(), trustme.CA()
        issued = authority.issue_cert("localhost")
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        self.ca = self._keep("ca.pem", authority.cert_pem.bytes())
        self.other_ca = self._keep("other-ca.pem", stranger.cert_pem.bytes())
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        pkcs8 = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.certificate = self._keep("cert.pem", chain)
        self.key = self._keep("key.pem", pkcs8)
        self.both = self._keep("both.pem", pkcs8 + chain)
        self.password_file = self._keep("password", f"{self.secret}\n".encode())

    def _keep(self, name: str, content: bytes) -> Path:
        file = self.folder / name
        file.write_bytes(content)
        return file


@dataclass
class Secured:
    """A broker, and how to come to it by the environment alone."""

    name: str
    broker: Broker
    papers: Papers
    port: int
    url: str
    """With `{host}` where the host belongs."""
    more: Mapping[str, str] = field(default_factory=dict)

    def environment(self, *, host: str = "localhost", user: str = USER, **changed: str | None) -> dict[str, str]:
        """EVENTKIT_*; what is changed is named as in `TLS__CA_FILE`, None leaves it out."""
        own = {
            "TLS__CA_FILE": str(self.papers.ca),
            "CREDENTIALS__USERNAME": user,
            "CREDENTIALS__PASSWORD_FILE": str(self.papers.password_file),
            **self.more,
            **changed,
        }
        prefix = f"EVENTKIT_{self.name.upper()}__"
        return {
            "EVENTKIT_BROKER": self.name,
            "EVENTKIT_URL": self.url.format(host=host),
            **{f"{prefix}{name}": value for name, value in own.items() if value is not None},
        }


def redis_users(papers: Papers) -> Path:
    """A file of Redis' users."""
    users = papers.folder / "users.acl"
    users.write_text(
        f"user default off\nuser {ADMIN} on >{papers.secret} ~* &* +@all\n"
        f"user {USER} on >{papers.secret} ~* &* +@all\n"
        f"user {POOR} on >{papers.secret} ~nothing &nothing +@connection +info\n"
    )
    return users


def _redis(papers: Papers) -> Secured:
    port = free_port()
    settings = {
        "tls-port": str(port),
        "tls-cert-file": str(papers.certificate),
        "tls-key-file": str(papers.key),
        "tls-ca-cert-file": str(papers.ca),
        "tls-auth-clients": "no",
        "aclfile": str(redis_users(papers)),
    }
    return Secured("redis", provide("redis", settings=settings), papers, port, f"rediss://{{host}}:{port}")


def nats_settings(papers: Papers, authorization: str) -> Mapping[str, str]:
    """Of a NATS server that speaks TLS."""
    return {
        "tls": f'{{ cert_file: "{papers.certificate}", key_file: "{papers.key}" }}',
        "authorization": authorization,
    }


def _nats(papers: Papers) -> Secured:
    poor = '{ publish: { deny: ["$JS.API.STREAM.CREATE.>", "orders.>"] } }'
    authorization = (
        f'{{ users: [ {{ user: "{USER}", password: "{papers.secret}" }}, '
        f'{{ user: "{POOR}", password: "{papers.secret}", permissions: {poor} }} ] }}'
    )
    broker = provide("nats", settings=nats_settings(papers, authorization))
    port = int(broker.url.rpartition(":")[2])
    return Secured("nats", broker, papers, port, f"tls://{{host}}:{port}")


def _rabbit(papers: Papers) -> Secured:
    port = free_port()
    salt = secrets.token_bytes(4)
    hashed = base64.b64encode(salt + hashlib.sha256(salt + papers.secret.encode()).digest()).decode()
    users = [
        {"name": name, "password_hash": hashed, "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ""}
        for name in (USER, POOR)
    ]
    rights = [
        {"user": USER, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"},
        {"user": POOR, "vhost": "/", "configure": "^$", "write": "^$", "read": "^$"},
    ]
    definitions = papers.folder / "definitions.json"
    definitions.write_text(json.dumps({"vhosts": [{"name": "/"}], "users": users, "permissions": rights}))
    settings = {
        "listeners.ssl.1": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": str(papers.ca),
        "ssl_options.certfile": str(papers.certificate),
        "ssl_options.keyfile": str(papers.key),
        "ssl_options.verify": "verify_none",
        "ssl_options.fail_if_no_peer_cert": "false",
        "load_definitions": str(definitions),
    }
    return Secured("rabbit", provide("rabbit", settings=settings), papers, port, f"amqps://{{host}}:{port}/")


def _kafka(papers: Papers) -> Secured:
    port = free_port()
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    users = " ".join(f'user_{name}="{papers.secret}"' for name in (USER, POOR))
    settings = {
        "listeners": f"SASL_SSL://127.0.0.1:{port}",
        "advertised.listeners": f"SASL_SSL://localhost:{port}",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": f"{plain} {users};",
        "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(papers.both),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{USER};User:ANONYMOUS",
        f"scram.user.{USER}": papers.secret,
    }
    return Secured("kafka", provide("kafka", settings=settings), papers, port, f"kafka+ssl://{{host}}:{port}")


SECURED: Mapping[str, Callable[[Papers], Secured]] = {
    "redis": _redis,
    "nats": _nats,
    "rabbit": _rabbit,
    "kafka": _kafka,
}
