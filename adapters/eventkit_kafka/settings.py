"""What an operator may set, and the address of the brokers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventkit.errors import SettingsError
from eventkit.security import Credentials, Tls

DEFAULT_URL = "kafka://localhost:9092"
_PORT = 9092
_PLAIN = ("kafka", "plaintext")
_ENCRYPTED = ("kafka+ssl", "kafkas", "ssl", "kafka+tls")


class KafkaSettings(BaseSettings):
    """EVENTKIT_KAFKA__*."""

    model_config = SettingsConfigDict(
        env_prefix="EVENTKIT_KAFKA__", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    tls: Tls = Tls()
    credentials: Credentials = Credentials()
    """For SASL. Either part may stand in the URL instead; these win."""
    sasl: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """The SASL mechanism, used if there is a username."""
    partitions: int | None = Field(default=None, ge=1)
    """Of topics and inboxes that are created. None: the broker's `num.partitions`."""
    replication: int | None = Field(default=None, ge=1)
    """Replicas of what is created. None: the broker's `default.replication.factor`."""
    min_insync_replicas: int | None = Field(default=None, ge=1)
    """How many of them must have a message before it counts as published; 2 of 3 survives the loss of a server, and
    needs two to be up. Of what is created. None: the broker's `min.insync.replicas`, 1 unless told otherwise."""
    retry_spread: int = Field(default=1, ge=1, le=64)
    """Partitions for each class of delay in a group's retry topic that is created; there are seven classes. More let
    more replicas share the work of retries."""
    retry_retention: timedelta = Field(default=timedelta(days=14), ge=timedelta(days=2))
    """How long a retry topic that is created keeps a message. Must exceed the longest delay, and the longest time that
    a service may be down."""
    session_timeout: timedelta = Field(default=timedelta(seconds=10), ge=timedelta(seconds=1))
    """After this long without a sign of life a process counts as dead and others take its messages over. The broker
    takes 6 s to 30 min unless told otherwise (`group.min.session.timeout.ms`)."""
    rebalance_timeout: timedelta = Field(default=timedelta(seconds=30), ge=timedelta(seconds=2))
    """When replicas come or go, running handlers have two thirds of this to end; then others get their messages too."""
    commit_interval: timedelta = Field(default=timedelta(milliseconds=100), ge=timedelta(0))
    """How often progress is written down. What was settled since comes again after a crash."""
    metadata_age: timedelta = Field(default=timedelta(seconds=30), ge=timedelta(seconds=1))
    """How soon new partitions and moved leaders are noticed."""
    publish_timeout: timedelta = Field(default=timedelta(seconds=10), gt=timedelta(0))
    """Then a publish that is not confirmed is answered with TimeoutError: it may still be written."""

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.replication is not None and (self.min_insync_replicas or 0) > self.replication:
            raise ValueError(
                f"min_insync_replicas={self.min_insync_replicas} of replication={self.replication}: nothing could be "
                "published; 2 of 3 is usual"
            )
        return self


@dataclass(frozen=True, slots=True)
class Url:
    """kafka://[user:password@]host[:port][,host[:port]...]; kafka+ssl:// for TLS; plain host:port too."""

    servers: tuple[str, ...]
    encrypted: bool
    username: str | None
    password: str | None

    @classmethod
    def parse(cls, url: str) -> Url:
        """SettingsError says what is wrong, without the password."""
        if "://" not in url:
            url = f"kafka://{url}"
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        if scheme not in _PLAIN + _ENCRYPTED:
            raise SettingsError(
                f"EVENTKIT_URL: {scheme}:// is no Kafka address: write kafka://host:9092, or kafka+ssl://"
            )
        user, at, hosts = parts.netloc.rpartition("@")
        username, _, password = user.partition(":")
        servers = tuple(_server(host) for host in hosts.split(",") if host)
        if not servers:
            raise SettingsError("EVENTKIT_URL names no host: write kafka://host:9092, several with commas between")
        return cls(
            servers,
            scheme in _ENCRYPTED,
            unquote(username) if at and username else None,
            unquote(password) if at and password else None,
        )


def _server(host: str) -> str:
    name, colon, port = host.rpartition(":")
    if host.endswith("]") or not colon:
        return f"{host}:{_PORT}"
    if not name or not port.isdecimal() or not 0 < int(port) < 65536:
        # not shown: where a '/' in a password is not encoded, this is a part of it
        raise SettingsError(
            "EVENTKIT_URL: what should be host:port is not (several with commas between); "
            "percent-encode what is special in a password"
        )
    return host
