"""Where the broker is and how it is reached."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from aio_pika import Connection
from yarl import URL

from eventkit.errors import SettingsError
from eventkit_rabbit.settings import RabbitSettings

_DEFAULT_URL = "amqp://guest:guest@localhost:5672/"
_AIO_PIKA = ("fail_fast", "reconnect_interval", "name")
_PORTS = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect and how. Its text names the broker, without secrets."""

    url: URL
    context: ssl.SSLContext | None
    client: str

    @property
    def host(self) -> str:
        return self.url.host or ""

    @property
    def port(self) -> int:
        return self.url.port or _PORTS["amqp"]

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def target(url: str | None, settings: RabbitSettings, client: str) -> Target:
    """SettingsError names what is wrong, never the password."""
    try:
        parsed = URL(url or _DEFAULT_URL)
        port = parsed.explicit_port
    except ValueError:
        raise SettingsError("EVENTKIT_URL: no URL; one for RabbitMQ is amqp://user:password@host:5672/vhost") from None
    if parsed.scheme not in _PORTS or not parsed.host:
        raise SettingsError(
            f"EVENTKIT_URL: begins with {parsed.scheme or 'nothing'}://; one for RabbitMQ is amqp://host or amqps://host"
        )
    enabled = settings.tls.enabled
    tls = parsed.scheme == "amqps" if enabled is None else enabled
    parsed = parsed.with_scheme("amqps" if tls else "amqp").with_port(port or _PORTS["amqps" if tls else "amqp"])
    if settings.credentials.username is not None:
        parsed = parsed.with_user(settings.credentials.username)
    if (password := settings.credentials.secret()) is not None:
        parsed = parsed.with_user(parsed.user or "guest").with_password(password)
    if "heartbeat" not in parsed.query:
        parsed = parsed.update_query(heartbeat=str(round(settings.heartbeat.total_seconds())))
    return Target(parsed, settings.tls.context() if tls else None, client)


def adopted(connected: Connection, settings: RabbitSettings, client: str) -> Target:
    """As this connection of aio-pika's is made. What only aio-pika understands is left out."""
    url = connected.url
    tls = url.scheme == "amqps"
    query = {name: value for name, value in url.query.items() if name not in _AIO_PIKA}
    query.setdefault("heartbeat", str(round(settings.heartbeat.total_seconds())))
    url = url.with_query(query).with_port(url.explicit_port or _PORTS[url.scheme])
    context = connected.kwargs.get("context") or settings.tls.context() if tls else None
    return Target(url, context, client)
