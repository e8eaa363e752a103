"""EVENTKIT_NATS__*: what an operator may set, and what the client is told of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventkit.errors import SettingsError
from eventkit.security import Credentials, Tls

DEFAULT_URL = "nats://localhost:4222"
_PORT = 4222
_SCHEMES = ("nats", "tls")


class Authentication(Credentials):
    """Who we are: one of user and password, token, nkey or credentials file. Nothing: as the URL says."""

    token: SecretStr | None = None
    nkey_seed_file: Path | None = None
    """Holds the seed of an nkey (`SU...`). Needs the package `nkeys`."""
    creds_file: Path | None = None
    """A `.creds` file: user JWT and seed. Needs the package `nkeys`."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = (self.username, self.token, self.nkey_seed_file, self.creds_file)
        if sum(way is not None for way in ways) > 1:
            raise ValueError("give one of username, token, nkey_seed_file, creds_file")
        return self


class NatsSettings(BaseSettings):
    """Read from EVENTKIT_NATS__*. Limits of streams that exist are changed only by what is set here explicitly."""

    model_config = SettingsConfigDict(
        env_prefix="EVENTKIT_NATS__", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    tls: Tls = Tls()
    tls_first: bool = False
    """Shake hands before the server says anything (the server's `handshake_first`)."""
    credentials: Authentication = Authentication()
    inbox_prefix: str = Field(default="_INBOX", pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")
    """What private answers go to, where the account's permissions give each user its own."""
    domain: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$")
    """The JetStream domain, on leaf nodes. None: the server's own."""

    lease: timedelta = Field(default=timedelta(seconds=30), ge=timedelta(milliseconds=200), le=timedelta(hours=12))
    """JetStream's `ack_wait`: the messages of a process that died are given to another after this time. One that works
    renews its lease at a third of it. When it is raised, what waits to be due at that moment comes later by as much."""
    publish_timeout: timedelta = Field(default=timedelta(seconds=10), ge=timedelta(milliseconds=100))
    """How long a publish, or any other question to the server, may take, connecting again included. Then a publish is
    answered with TimeoutError: it may still be stored."""

    replicas: int = Field(default=1, ge=1, le=5)
    """Copies of each stream in a cluster: 1, 3 or 5."""
    topic_age: timedelta = Field(default=timedelta(days=30), ge=timedelta(0))
    """How long a topic keeps its messages; a group that is down for longer loses them. 0: for ever."""
    topic_bytes: int = Field(default=-1, ge=-1)
    """How much a topic keeps, in bytes; the oldest go first. -1: no limit."""
    inbox_bytes: int = Field(default=-1, ge=-1)
    """How much may wait in an inbox, in bytes; further commands are refused. -1: no limit."""
    duplicate_window: timedelta = Field(default=timedelta(minutes=2), ge=timedelta(milliseconds=100))
    """How long the server remembers ids, to drop a second copy."""


class Target:
    """Where and how to connect: made of the URL and the settings, without I/O.

    nats://[user:password@]host[:port], nats://token@host, tls://host; several, of one cluster, with commas between.
    """

    def __init__(self, url: SecretStr | None, settings: NatsSettings, name: str) -> None:
        self.servers: list[str] = []
        self.secure = settings.tls.enabled
        user: str | None = None
        password: str | None = None
        for part in (url.get_secret_value() if url else DEFAULT_URL).split(","):
            parts = urlsplit(part.strip() if "://" in part else f"nats://{part.strip()}")
            if parts.scheme not in _SCHEMES or not parts.hostname:
                raise SettingsError(f"a NATS URL is like {DEFAULT_URL} or tls://host:4222, not {parts.scheme}://...")
            if parts.username is not None and user is None:
                user = unquote(parts.username)
                password = unquote(parts.password) if parts.password is not None else None
            if self.secure is None and parts.scheme == "tls":
                self.secure = True
            try:
                port = parts.port or _PORT
            except ValueError:  # its text may hold a part of a password that was not percent-encoded
                raise SettingsError(
                    "the NATS URL has no valid port; '/', '@' and ':' in a password are encoded"
                ) from None
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            self.servers.append(f"{parts.scheme}://{host}:{port}")
        self._settings = settings
        self._name = name
        self._user, self._password = user, password

    def options(self) -> dict[str, Any]:
        """The client's arguments. Reads the files that are named in the settings: SettingsError if one is no good."""
        settings, auth = self._settings, self._settings.credentials
        given: dict[str, Any] = {
            "name": self._name,
            "tls": settings.tls.context("EVENTKIT_NATS__TLS"),
            "tls_handshake_first": settings.tls_first,
        }
        if auth.nkey_seed_file is not None or auth.creds_file is not None:
            try:
                import nkeys  # type: ignore[import-not-found,import-untyped,unused-ignore] # noqa: F401
            except ImportError as error:
                raise SettingsError(
                    "nkeys and credentials files need the package 'nkeys': pip install 'faststream-eventkit[nats]'"
                ) from error
        if auth.creds_file is not None:
            given["user_credentials"] = str(_readable(auth.creds_file, "CREDS_FILE"))
        elif auth.nkey_seed_file is not None:
            given["nkeys_seed"] = str(_readable(auth.nkey_seed_file, "NKEY_SEED_FILE"))
        elif auth.token is not None:
            given["token"] = auth.token.get_secret_value()
        else:
            user, password = auth.username or self._user, auth.secret("EVENTKIT_NATS__CREDENTIALS")
            if password is None:
                password = self._password
            if user is not None and password is not None:
                given["user"], given["password"] = user, password
            elif auth.username is not None:
                raise SettingsError(
                    f"NATS: there is no password for the user {user!r} (EVENTKIT_NATS__CREDENTIALS__PASSWORD)"
                )
            elif user is not None:
                given["token"] = user
        return given


def _readable(file: Path, named: str) -> Path:
    try:
        with file.open("rb"):
            return file
    except OSError as error:
        raise SettingsError(
            f"EVENTKIT_NATS__CREDENTIALS__{named}: cannot read {file}: {error.strerror or error}"
        ) from error
