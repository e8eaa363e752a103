"""How a Redis is reached, and what is found there."""

from __future__ import annotations

import logging
from typing import Any, Final

from faststream.redis import RedisBroker
from faststream.security import BaseSecurity, SASLPlaintext
from redis.asyncio.connection import AbstractConnection, ConnectionPool, parse_url
from redis.exceptions import ResponseError

from eventkit.adapter import Connection
from eventkit.errors import SettingsError
from eventkit_redis.link import Connect, Link, command, connected
from eventkit_redis.sentinel import Sentinels
from eventkit_redis.settings import RedisSettings

log = logging.getLogger("eventkit.redis")

URL: Final = "redis://localhost:6379"
_OURS: Final[dict[str, Any]] = {
    # Ours to bound: a time limit for each reply costs more than the reply.
    "socket_timeout": None,
    "socket_connect_timeout": 5.0,
    "socket_read_size": 1 << 18,
}
_BULK: Final = 512 * 1024 * 1024
_OLDEST: Final = (7, 0)


def broker(connection: Connection, settings: RedisSettings) -> tuple[RedisBroker, Sentinels | None]:
    """FastStream's broker for this URL, with TLS and credentials of the settings, and the Sentinels that know where it
    is, if the URL names some. Opens nothing."""
    url = connection.url.get_secret_value() if connection.url is not None else URL
    sentinels = None
    try:
        if Sentinels.meant(url):
            sentinels = Sentinels.parse(url, settings)
            url = sentinels.url  # all but where it is
        found = parse_url(url)
    except SettingsError:
        raise
    except ValueError:
        # What is wrong with it may be a part of its password.
        raise SettingsError(
            "EVENTKIT_URL is no URL of a Redis: redis://[user:password@]host[:port][/db], rediss:// or unix://, or "
            "redis+sentinel://[user:password@]host[:port][,host[:port]...]/name[/db]; "
            "percent-encode what is special in a password"
        ) from None
    enabled = settings.tls.enabled if settings.tls.enabled is not None else url.startswith("rediss://")
    if url.startswith("rediss://") and not enabled:
        url = "redis://" + url.removeprefix("rediss://")
    context = settings.tls.context("EVENTKIT_REDIS__TLS") if enabled else None
    username = settings.credentials.username or found.get("username") or ""
    password = settings.credentials.secret("EVENTKIT_REDIS__CREDENTIALS") or found.get("password") or ""
    security = BaseSecurity(ssl_context=context, use_ssl=enabled)
    if username or password:
        security = SASLPlaintext(username, password, ssl_context=context, use_ssl=enabled)
    made = RedisBroker(
        url,
        security=security,
        client_name=_printable(connection.client),
        **_OURS,
        logger=None,  # type: ignore[arg-type] # its own default; the annotation forgot it
    )
    return made, sentinels


def _printable(name: str) -> str | None:
    return "".join(c if "!" <= c <= "~" else "-" for c in name) or None


def connector(client: Any, name: str | None = None, sentinels: Sentinels | None = None) -> Connect:
    """What makes single connections with FastStream's settings. `name`: its client is somebody else's, and connects
    with all that it may have set for its own use. `sentinels`: they are asked each time where to."""
    pool = getattr(client, "connection_pool", None)
    if type(pool) is not ConnectionPool:
        raise SettingsError(
            f"connect(broker=...): its {type(client).__name__} uses a cluster or sentinels, which eventkit cannot take "
            "over: hand in the RedisBroker of a single Redis; Sentinels are named by EVENTKIT_URL=redis+sentinel://..."
        )
    made = pool.connection_class
    # Maintenance notifications belong to the pool, which does not know these connections.
    options: dict[str, Any] = {
        name: value
        for name, value in pool.connection_kwargs.items()
        if not name.startswith(("maint", "orig_", "oss_cluster"))
    }

    if name is not None:
        options |= {**_OURS, "client_name": _printable(name), "decode_responses": False}
        options.pop("retry", None)

    async def connect() -> AbstractConnection:
        return await connected(made(**options))

    return connect if sentinels is None else sentinels.connector(made, options)


async def inspect(link: Link, wait: int) -> int:
    """The largest value it takes, in bytes. Says in the log what an operator should know of this Redis. `wait`: so many
    replicas are to have what is published."""
    (info,) = await link.ask(command("INFO"))
    said = dict(line.split(":", 1) for line in info.decode(errors="replace").splitlines() if ":" in line)
    version = said.get("redis_version", "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < _OLDEST:
        raise SettingsError(f"Redis {version} is too old: eventkit needs 7.0 or newer")
    if said.get("cluster_enabled") == "1":
        raise SettingsError("this is a node of a Redis Cluster, which eventkit does not support: use a single Redis")
    if said.get("aof_enabled") == "0":
        log.warning("this Redis keeps no append-only file: a crash loses what came after its last snapshot")
    replicas = int(said.get("connected_slaves", "0"))
    if replicas < wait:
        log.warning("EVENTKIT_REDIS__WAIT is %d, this Redis has %d replicas: no publish will succeed", wait, replicas)
    policy = said.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and said.get("maxmemory", "0") != "0":
        log.warning("this Redis may evict messages when memory is short (maxmemory-policy %s): set noeviction", policy)
    try:
        (limit,) = await link.ask(command("CONFIG", "GET", "proto-max-bulk-len"))
    except ResponseError:
        return _BULK  # not permitted, or a managed Redis without CONFIG
    values = list(limit.values()) if isinstance(limit, dict) else limit[1:]
    return int(values[0]) if values else _BULK
