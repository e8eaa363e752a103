"""Redis behind Sentinels: they are asked where the primary is, whenever a connection is made."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from eventkit.errors import SettingsError
from eventkit_redis.link import Connect, connected, disconnect
from eventkit_redis.settings import RedisSettings

_SCHEMES: Final = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_PORT: Final = 26379
_SHORT: Final = 1.0
"""Seconds for a Sentinel to take us: another may know as well."""


@dataclass(frozen=True, slots=True)
class Sentinels:
    """redis+sentinel://[user:password@]host[:port][,host[:port]...]/name[/db]; rediss+sentinel:// for TLS.

    User and password are for the Redis; those for the Sentinels stand in the settings.
    """

    hosts: tuple[tuple[str, int], ...]
    name: str
    """What they call the primary."""
    url: str = field(repr=False)
    """Of a Redis with the same user, database and options; where it is means nothing."""
    login: dict[str, str] = field(repr=False)

    @staticmethod
    def meant(url: str) -> bool:
        """Does this URL name Sentinels?"""
        return url.partition("://")[0].lower() in _SCHEMES

    @classmethod
    def parse(cls, url: str, settings: RedisSettings) -> Sentinels:
        """ValueError says nothing of the password."""
        parts = urlsplit(url)
        user, at, hosts = parts.netloc.rpartition("@")
        name, _, database = parts.path.strip("/").partition("/")
        if not name:
            raise SettingsError(
                "EVENTKIT_URL: after the Sentinels comes the name that they have for the primary: "
                "redis+sentinel://one:26379,two:26379/mymaster"
            )
        if database and not database.isdecimal():
            raise ValueError("the database is a number")
        found = tuple(_address(host.strip()) for host in hosts.split(","))
        scheme = _SCHEMES[parts.scheme.lower()]
        single = urlunsplit((scheme, f"{user}{at}localhost", f"/{database or 0}", parts.query, ""))
        login = {
            "username": settings.sentinel.username,
            "password": settings.sentinel.secret("EVENTKIT_REDIS__SENTINEL"),
        }
        return cls(found, unquote(name), single, {key: value for key, value in login.items() if value is not None})

    def connector(self, made: type[AbstractConnection], options: dict[str, Any]) -> Connect:
        """What connects to the primary of the moment. `made`, `options`: as redis-py connects to a single Redis."""
        asks = {**options, "socket_connect_timeout": _SHORT, "socket_timeout": _SHORT, "db": 0}
        asks = {**asks, "username": None, "password": None, "credential_provider": None, **self.login}

        async def connect() -> AbstractConnection:
            reasons: list[str] = []
            unknown = 0
            for host, port in random.sample(self.hosts, len(self.hosts)):
                try:
                    found = await self._ask(made(**{**asks, "host": host, "port": port}))
                except AuthenticationError as error:
                    reasons.append(f"the Sentinel {host}:{port}, asked as EVENTKIT_REDIS__SENTINEL__* says: {error}")
                    continue
                except (RedisError, OSError, TimeoutError) as error:
                    reasons.append(f"the Sentinel {host}:{port}: {error}")
                    continue
                if found is None:
                    unknown += 1
                    reasons.append(f"the Sentinel {host}:{port} knows none")
                    continue
                where = f"{found[0]}:{found[1]}"
                try:
                    primary = await _primary(made(**{**options, "host": found[0], "port": found[1]}))
                except (RedisError, OSError, TimeoutError) as error:
                    reasons.append(f"the Sentinel {host}:{port} says {where}, and that says: {error}")
                    continue
                if primary is not None:
                    return primary
                reasons.append(f"the Sentinel {host}:{port} says {where}, which is not the primary (yet)")
            if unknown == len(self.hosts):
                raise SettingsError(f"EVENTKIT_URL: no Sentinel knows a primary of the name {self.name!r}")
            raise RedisConnectionError(f"no primary {self.name!r}: {'; '.join(reasons)}")

        return connect

    async def _ask(self, sentinel: AbstractConnection) -> tuple[str, int] | None:
        await connected(sentinel)
        try:
            found = await _reply(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        finally:
            await disconnect(sentinel)
        return None if not found else (_text(found[0]), int(found[1]))


async def _primary(connection: AbstractConnection) -> AbstractConnection | None:
    """Connected, unless it is no primary: a Sentinel may be behind, and a former one need not know of its end yet."""
    await connected(connection)
    try:
        role = _text((await _reply(connection, "ROLE"))[0])
    except BaseException:
        await disconnect(connection)
        raise
    if role == "master":
        return connection
    await disconnect(connection)
    return None


async def _reply(connection: AbstractConnection, *words: str) -> Any:
    await connection.send_command(*words)
    return await connection.read_response()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _address(host: str) -> tuple[str, int]:
    found = urlsplit(f"//{host}")
    if not found.hostname:
        raise ValueError("a Sentinel without a host")
    return found.hostname, found.port or _PORT
