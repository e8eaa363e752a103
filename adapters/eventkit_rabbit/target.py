"""Where the broker is and how it is reached."""

from __future__ import annotations

import random
import ssl
from collections.abc import Sequence
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
    """Of the first node, or the only one."""
    context: ssl.SSLContext | None
    client: str
    others: tuple[URL, ...] = ()
    """The other nodes of a cluster."""

    def nodes(self) -> Sequence[Target]:
        """Each node alone, in another order each time, so that the clients of a cluster spread over it."""
        urls = (self.url, *self.others)
        return [Target(url, self.context, self.client) for url in random.sample(urls, len(urls))]

    @property
    def host(self) -> str:
        return self.url.host or ""

    @property
    def port(self) -> int:
        return self.url.port or _PORTS["amqp"]

    def __str__(self) -> str:
        return ", ".join(f"{url.host}:{url.port}" for url in (self.url, *self.others))


def target(url: str | None, settings: RabbitSettings, client: str) -> Target:
    """amqp://[user[:password]@]host[:port][,host[:port]...][/vhost]; amqps:// for TLS.

    SettingsError names what is wrong, never the password.
    """
    enabled = settings.tls.enabled
    found = []
    for one in _each(url or _DEFAULT_URL):
        try:
            parsed = URL(one)
            port = parsed.explicit_port
        except ValueError:
            raise SettingsError(
                "EVENTKIT_URL: no URL; one for RabbitMQ is amqp://user:password@host:5672/vhost, "
                "with commas between the host:port of several nodes"
            ) from None
        if parsed.scheme not in _PORTS or not parsed.host:
            raise SettingsError(
                f"EVENTKIT_URL: begins with {parsed.scheme or 'nothing'}://; one for RabbitMQ is amqp://host "
                "or amqps://host, with commas between several hosts"
            )
        tls = parsed.scheme == "amqps" if enabled is None else enabled
        scheme = "amqps" if tls else "amqp"
        found.append(_with_settings(parsed.with_scheme(scheme).with_port(port or _PORTS[scheme]), settings))
    first, *others = found
    return Target(first, tls_context(settings) if first.scheme == "amqps" else None, client, tuple(others))


def tls_context(settings: RabbitSettings) -> ssl.SSLContext:
    """SettingsError names the variable of a file that cannot be used."""
    return settings.tls.context("EVENTKIT_RABBIT__TLS")


def _with_settings(url: URL, settings: RabbitSettings) -> URL:
    if settings.credentials.username is not None:
        url = url.with_user(settings.credentials.username)
    if (password := settings.credentials.secret("EVENTKIT_RABBIT__CREDENTIALS")) is not None:
        url = url.with_user(url.user or "guest").with_password(password)
    if "heartbeat" not in url.query:
        url = url.update_query(heartbeat=str(round(settings.heartbeat.total_seconds())))
    return url


def _each(url: str) -> list[str]:
    """The URL of each node of one that names several."""
    scheme, there, rest = url.partition("://")
    if not there:
        return [url]
    ends = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    user, at, hosts = rest[:ends].rpartition("@")
    return [f"{scheme}://{user}{at}{host.strip()}{rest[ends:]}" for host in hosts.split(",")]


def adopted(connected: Connection, settings: RabbitSettings, client: str) -> Target:
    """As this connection of aio-pika's is made. What only aio-pika understands is left out."""
    url = connected.url
    tls = url.scheme == "amqps"
    query = {name: value for name, value in url.query.items() if name not in _AIO_PIKA}
    query.setdefault("heartbeat", str(round(settings.heartbeat.total_seconds())))
    url = url.with_query(query).with_port(url.explicit_port or _PORTS[url.scheme])
    context = connected.kwargs.get("context") or tls_context(settings) if tls else None
    return Target(url, context, client)
