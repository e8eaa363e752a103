"""The server of a document: where the broker is and how one signs in, without any secret (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit

from eventkit import discovery
from eventkit.asyncapi.errors import DocumentError

Security: TypeAlias = Literal["userPassword", "X509", "plain", "scramSha256", "scramSha512", "gssapi"]
SECURITY: tuple[Security, ...] = ("userPassword", "X509", "plain", "scramSha256", "scramSha512", "gssapi")


class _Broker(NamedTuple):
    protocol: str
    encrypted: str
    """The protocol over TLS."""
    port: int
    schemes: tuple[str, ...]
    """Of URLs that mean TLS."""
    signs_in: Security
    """What a user and a password in the URL are."""
    title: str


_BROKERS: Mapping[str, _Broker] = {
    "kafka": _Broker("kafka", "kafka-secure", 9092, ("kafka+ssl", "kafka+tls", "kafkas", "ssl"), "plain", "Kafka"),
    "rabbit": _Broker("amqp", "amqps", 5672, ("amqps",), "userPassword", "RabbitMQ"),
    "nats": _Broker("nats", "nats", 4222, ("tls",), "userPassword", "NATS JetStream"),
    "redis": _Broker("redis", "rediss", 6379, ("rediss",), "userPassword", "Redis Streams"),
}


def check(broker: str | None, security: str | None) -> None:
    """DocumentError for a broker that is not installed, or a security scheme that AsyncAPI does not know."""
    if broker is not None and broker not in _BROKERS and broker not in discovery.installed():
        raise DocumentError(f"there is no broker {broker!r} (installed: {', '.join(discovery.installed())})")
    if security is not None and security not in SECURITY:
        raise DocumentError(f"security={security!r} is none of {', '.join(SECURITY)}")


def servers(broker: str | None, url: str | None, security: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Servers and security schemes. The memory broker has no server."""
    if broker in (None, "memory"):
        if url is not None:
            raise DocumentError("a url= without a broker= says nothing: give both")
        return {}, {}
    known = _BROKERS.get(broker) or _Broker(broker, broker, 0, (), "userPassword", broker)
    parsed = _Url.parse(url or f"{known.protocol}://localhost", known)
    scheme = security or (known.signs_in if parsed.user else None)
    found: dict[str, Any] = {}
    for number, host in enumerate(parsed.hosts, 1):
        server: dict[str, Any] = {
            "host": host,
            "protocol": known.encrypted if parsed.encrypted else known.protocol,
            "title": known.title,
        }
        if parsed.encrypted:
            server["description"] = "Over TLS."
        if parsed.path:
            server["pathname"] = f"/{parsed.path}"
        if scheme is not None:
            server["security"] = [{"$ref": f"#/components/securitySchemes/{scheme}"}]
        found[broker if number == 1 else f"{broker}-{number}"] = server
    return found, {} if scheme is None else {scheme: {"type": scheme}}


def vhost(broker: str | None, url: str | None) -> str:
    """RabbitMQ's virtual host, as its URL says."""
    if broker != "rabbit" or url is None:
        return "/"
    return unquote(_Url.parse(url, _BROKERS["rabbit"]).path) or "/"


_LIST = re.compile(r",(?=\s*[a-z+]+://)")


class _Url(NamedTuple):
    hosts: list[str]
    encrypted: bool
    user: bool
    path: str

    @classmethod
    def parse(cls, url: str, broker: _Broker) -> _Url:
        """User, password and query are dropped: they may hold secrets."""
        hosts: list[str] = []
        encrypted = user = False
        path = ""
        for part in _LIST.split(url):  # NATS takes several URLs, the others several hosts in one
            text = part.strip()
            parts = urlsplit(text if "://" in text else f"//{text}")
            if "@" in f"{parts.path}{parts.query}{parts.fragment}":
                raise DocumentError("url=: write '/', '?' and '#' in a user or password percent-encoded")
            secret, at, names = parts.netloc.rpartition("@")
            user = user or bool(at and secret)
            encrypted = encrypted or parts.scheme.lower() in broker.schemes
            path = path or parts.path.strip("/")
            hosts.extend(_host(name, broker.port) for name in names.split(","))
        return cls(hosts, encrypted, user, path)


def _host(text: str, port: int) -> str:
    try:
        parts = urlsplit(f"//{text}")
        chosen = parts.port or port
    except ValueError:
        raise DocumentError("url= is no URL: write it like redis://host:6379") from None
    if not parts.hostname:
        raise DocumentError("url= names no host: write it like redis://host:6379")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{name}:{chosen}" if chosen else name
