"""Redis: a primary, two replicas, and three Sentinels that make one of these primary when the primary is gone."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Collection, Iterator
from typing import ClassVar

import redis as client
from redis.exceptions import RedisError

from eventkit.testing.brokers import probe
from eventkit.testing.brokers.process import Program, free_port
from eventkit.testing.brokers.redis import Redis as Recipe
from tests.rig.clusters.cluster import ELECTED, Cluster, wait

NAME = "rig"
"""Of the primary, as the Sentinels call it."""
_DATA = 3
"""Two replicas: with one, `WAIT 1` would let nothing be published from a failover until the dead server is back."""
_SENTINELS = 3
_DOWN_MS = 1000
"""Silence after which a Sentinel takes the primary for dead."""


class Redis(Cluster):
    name = "redis sentinel, WAIT 1"
    broker = "redis"
    settings: ClassVar = {"lease": "PT2S", "wait": "1"}

    @property
    def url(self) -> str:
        return "redis+sentinel://" + ",".join(f"127.0.0.1:{port}" for port in self._sentinels) + f"/{NAME}"

    def _begin(self) -> None:
        recipe = Recipe()
        found = recipe.find()
        settings = {"appendfsync": "always", "repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}
        self._sentinels: list[int] = []
        primary = 0
        for _ in range(_DATA):
            folder = self._folder()
            of = {"replicaof": f"127.0.0.1 {primary}"} if primary else {}
            (program,) = recipe.programs(found, folder, {**settings, **of}, self.say)
            self._add(str(program.port), folder, program)
            primary = primary or program.port
        self._data = list(self.servers)
        for _ in range(_SENTINELS):
            folder, port = self._folder(), free_port()
            file = folder / "sentinel.conf"
            file.write_text(
                f"bind 127.0.0.1\nport {port}\ndir {folder}\n"
                f"sentinel monitor {NAME} 127.0.0.1 {primary} 2\n"
                f"sentinel down-after-milliseconds {NAME} {_DOWN_MS}\n"
                f"sentinel failover-timeout {NAME} 4000\n"
            )
            self._add(
                f"sentinel-{port}",
                folder,
                Program("sentinel", [str(found.path), str(file), "--sentinel"], port, probe.redis, seconds=30),
            )
            self._sentinels.append(port)
        wait(self._known, ELECTED, "redis: the Sentinels do not know each other")
        wait(self.in_step, ELECTED, "redis: the replica is not in step")

    def leader(self) -> str:
        for port in self._sentinels:
            with contextlib.suppress(RedisError, OSError), self._client(port) as sentinel:
                (_, found) = sentinel.sentinel_get_master_addr_by_name(NAME)
                with self._client(int(found)) as primary:
                    if primary.role()[0] == b"master":
                        return str(found)
        raise LookupError(NAME)

    def in_step(self) -> bool:
        try:
            with self._client(int(self.leader())) as primary:
                primary.set("rig:in-step", 1)
                return int(primary.wait(_DATA - 1, 1000)) == _DATA - 1
        except (LookupError, RedisError, OSError):
            return False

    def kill_most(self) -> None:
        """Kill all: one that is left would become the primary, since Redis needs no majority of its servers."""
        for name in self._data:
            self.servers[name].kill()

    def led_again(self) -> None:
        """Returns when a primary is there."""
        wait(self._leader, ELECTED, "redis: no primary")

    @property
    def replicas(self) -> list[str]:
        """The servers that follow."""
        led = self.leader()
        return [name for name in self._data if name != led]

    @contextlib.contextmanager
    def standing_still(self, names: Collection[str]) -> Iterator[None]:
        """These servers are paused: they take nothing, and say nothing."""
        for name in names:
            self.servers[name].send(signal.SIGSTOP)
        try:
            yield
        finally:
            for name in names:
                self.servers[name].send(signal.SIGCONT)

    def _known(self) -> bool:
        for port in self._sentinels:
            with self._client(port) as sentinel:
                state = sentinel.sentinel_master(NAME)
                if state["num-slaves"] < _DATA - 1 or state["num-other-sentinels"] < _SENTINELS - 1:
                    return False
        return True

    def _client(self, port: int) -> client.Redis:
        return client.Redis(host="127.0.0.1", port=port, socket_timeout=2, socket_connect_timeout=2, retry=None)


class Asynchronous(Redis):
    """Publishes are answered when the primary has them, as Redis does by itself."""

    name = "redis sentinel, no WAIT"
    settings: ClassVar = {"lease": "PT2S"}
