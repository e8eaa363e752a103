"""Real brokers that tests may kill, cut off and rob: one of its own a broker, behind a proxy of ours."""

from __future__ import annotations

import asyncio
import copy
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from eventkit import discovery, names
from eventkit.adapter import Adapter, Connection, Group
from eventkit.testing.brokers import Broker, provide
from tests import loop
from tests.proxy import Proxy

_LEASE = 2.0

_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "redis": {"lease": "PT2S"},
    "nats": {"lease": "PT2S"},
    "rabbit": {"heartbeat": "PT1S"},
    "kafka": {"partitions": "2", "session_timeout": "PT2S", "rebalance_timeout": "PT6S"},
}
"""As variables of the environment, so that a process of its own has them too. RabbitMQ has no leases: it takes back
what a process holds that missed two heartbeats, and looks for that only now and then."""
_LEASES = {"rabbit": 4.0}
_LEASE_SETTINGS: Mapping[str, tuple[str, float]] = {
    "redis": ("lease", 1.0),
    "nats": ("lease", 1.0),
    "rabbit": ("heartbeat", 1 / 3),
    "kafka": ("session_timeout", 1.0),
}
"""What sets how long a process may be silent, and what part of that. RabbitMQ misses one after two to three
heartbeats."""
_YOUNG = {"rabbit": 2.0}
"""RabbitMQ writes down late that a quorum queue has begun: killed within a second of it, it loses what it confirmed."""


@dataclass
class Breakable:
    """A broker of its own."""

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    """The server's own, besides what is needed here."""
    lease: float = _LEASE
    young: float = 0.0
    """Seconds that what was just declared needs until it survives a kill."""

    def __post_init__(self) -> None:
        self.lease = _LEASES.get(self.name, _LEASE)
        self.young = _YOUNG.get(self.name, 0.0)
        self.proxy = Proxy()
        settings: dict[str, str | None] = dict(_needs(self.name, self.proxy.port) | dict(self.settings))
        self.broker: Broker = provide(self.name, settings=settings)
        parts = urlsplit(self.broker.url)
        assert parts.port is not None
        self.proxy.to(parts.port)
        self.direct = self.broker.url
        """Past the proxy."""
        user, at, _ = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.proxy.port}"))
        self.start, self.kill, self.restart = self.broker.start, self.broker.kill, self.broker.restart
        self.cut = self.proxy.cut
        self._set = dict(_SETTINGS[self.name])

    def with_lease(self, seconds: float, /) -> Self:
        name, part = _LEASE_SETTINGS[self.name]
        same = copy.copy(self)
        same.lease = seconds
        same._set = {**self._set, name: f"PT{round(seconds * part)}S"}
        return same

    def adapter(self, namespace: str, /, **settings: Any) -> Adapter:
        made = discovery.load(self.name)
        given = None if made.settings is None else made.settings(**{**self._set, **settings})
        return made(Connection(url=SecretStr(self.url), namespace=namespace, client="contract", settings=given))

    def environment(self, namespace: str, /) -> Mapping[str, str]:
        prefix = f"EVENTKIT_{self.name.upper()}__"
        return {
            "EVENTKIT_BROKER": self.name,
            "EVENTKIT_URL": self.url,
            "EVENTKIT_NAMESPACE": namespace,
            **loop.environment(),
            **{f"{prefix}{name.upper()}": value for name, value in self._set.items()},
        }

    def pause(self, pid: int, /) -> None:
        os.kill(pid, signal.SIGSTOP)

    def take_away(self, namespace: str, group: Group, /) -> None:
        _TAKE_AWAY[self.name](self.direct, namespace, group)

    def stop(self) -> None:
        self.broker.stop()
        self.proxy.close()


def _needs(name: str, port: int) -> dict[str, str]:
    if name == "kafka":  # its clients go where it says that it is; and it refuses short sessions unless told
        return {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}", "group.min.session.timeout.ms": "1000"}
    return {"redis": {"maxmemory": "0"}, "nats": {"max_payload": "1MB"}, "rabbit": {"channel_max": "2047"}}[name]


def _redis(url: str, namespace: str, group: Group) -> None:
    import redis

    from eventkit_redis.keys import Keys

    keys = Keys(namespace)
    with redis.Redis.from_url(url) as client:
        for source in (*group.sources, group.retry):
            client.xgroup_destroy(keys.stream(source), keys.group(group))


def _nats(url: str, namespace: str, group: Group) -> None:
    import nats

    naming = names.nats(namespace)

    async def delete() -> None:
        client = await nats.connect(url)
        for source in (*group.sources, group.retry):
            await client.jetstream().delete_consumer(
                naming.channel(source.kind, source.name, source.physical), naming.group(group.name)
            )
        await client.close()

    asyncio.run(delete())


def _rabbit(url: str, namespace: str, group: Group) -> None:
    import aiormq

    async def delete() -> None:
        connection = await aiormq.connect(url)
        channel = await connection.channel()
        await channel.queue_delete(names.rabbit(namespace).group(group.name))
        await connection.close()

    asyncio.run(delete())


def _kafka(url: str, namespace: str, group: Group) -> None:
    from aiokafka.admin import AIOKafkaAdminClient

    naming = names.kafka(namespace)

    async def delete() -> None:
        # not past the proxy: the broker names itself by it
        admin = AIOKafkaAdminClient(bootstrap_servers=urlsplit(url).netloc)
        await admin.start()
        await admin.delete_topics([naming.channel(s.kind, s.name, s.physical) for s in group.sources])
        await admin.close()

    asyncio.run(delete())


_TAKE_AWAY: Mapping[str, Callable[[str, str, Group], None]] = {
    "redis": _redis,
    "nats": _nats,
    "rabbit": _rabbit,
    "kafka": _kafka,
}
