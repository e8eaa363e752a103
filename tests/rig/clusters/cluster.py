"""What all clusters share: three servers, one at a time killed, started again, and waited for."""

from __future__ import annotations

import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pydantic import SecretStr

from eventkit import discovery
from eventkit.adapter import Adapter, Connection
from eventkit.testing.brokers.process import Program, Server

ELECTED = 60.0
"""Seconds within which another leads after the one that led was killed."""
IN_STEP = 90.0
"""Seconds within which one that came back has all that the others have."""

Say = Callable[[str], object]
T = TypeVar("T")


class Cluster(ABC):
    """Three servers of one broker. `stop()` it."""

    name: str
    broker: str
    """The adapter's name."""
    settings: Mapping[str, str]
    """The adapter's, as variables of the environment."""
    lease = 2.0
    young = 0.0
    proxy = None

    def __init__(self, say: Say) -> None:
        self.say = say
        self.namespace = ""
        """What the processes of a run are told: whose leader is killed."""
        self.servers: dict[str, Server] = {}
        """By the broker's own name of each."""
        self._folders: list[Path] = []
        self.elections: list[float] = []
        """Seconds from each kill until another led."""
        try:
            self._begin()
        except BaseException:
            self.stop()
            raise

    # what differs

    @property
    @abstractmethod
    def url(self) -> str:
        """Names all servers."""

    @abstractmethod
    def _begin(self) -> None:
        """Start all, and return when they work together."""

    @abstractmethod
    def leader(self) -> str:
        """The server that leads the rig's topic or, before there is one, any. `LookupError`: none does now."""

    @abstractmethod
    def in_step(self) -> bool:
        """Has each server all that the others have?"""

    # what does not

    @property
    def version(self) -> str:
        return f"{next(iter(self.servers.values())).version}, three servers"

    def adapter(self, namespace: str, /, **settings: str) -> Adapter:
        made = discovery.load(self.broker)
        given = None if made.settings is None else made.settings(**{**self.settings, **settings})
        return made(Connection(url=SecretStr(self.url), namespace=namespace, client="rig", settings=given))

    def environment(self, namespace: str, /) -> Mapping[str, str]:
        self.namespace = namespace
        prefix = f"EVENTKIT_{self.broker.upper()}__"
        return {
            "EVENTKIT_BROKER": self.broker,
            "EVENTKIT_URL": self.url,
            "EVENTKIT_NAMESPACE": namespace,
            **{f"{prefix}{name.upper()}": value for name, value in self.settings.items()},
        }

    def kill(self) -> None:
        """Kill the leader with -9. Returns when another leads."""
        led = wait(self._leader, ELECTED, f"{self.name}: nobody leads")
        began = time.monotonic()
        self.servers[led].kill()
        wait(lambda: self._leader() not in (led, None), ELECTED, f"{self.name}: nobody leads instead of {led}")
        self.elections.append(time.monotonic() - began)
        self.say(f"{self.name}: killed {led}, after {self.elections[-1]:.1f} s {self._leader()} leads")

    def kill_most(self) -> None:
        """Kill all servers but one: no majority is left."""
        *most, _ = self.servers
        for name in most:
            self.servers[name].kill()

    def start(self) -> None:
        """Start whatever was killed. Returns when all are in step."""
        with ThreadPoolExecutor(len(self.servers)) as pool:  # some are not ready before others are
            list(pool.map(Server.start, self.servers.values()))
        began = time.monotonic()
        wait(self.in_step, IN_STEP, f"{self.name}: not in step again")
        self.say(f"{self.name}: in step again {time.monotonic() - began:.1f} s after it answered")

    def restart(self) -> None:
        """Shut the leader down in order, and start it again."""
        self.servers[wait(self._leader, ELECTED, f"{self.name}: nobody leads")].restart()
        wait(self.in_step, IN_STEP, f"{self.name}: not in step again")

    def stop(self) -> None:
        for server in self.servers.values():
            server.stop()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    # for those that derive

    def _folder(self) -> Path:
        self._folders.append(Path(tempfile.mkdtemp(prefix=f"eventkit-{self.broker}-")))
        return self._folders[-1]

    def _add(self, name: str, folder: Path, *programs: Program) -> None:
        self.servers[name] = Server(name, folder, programs, self.say)
        self.servers[name].start()

    def _leader(self) -> str | None:
        try:
            return self.leader()
        except LookupError:
            return None


def wait(found: Callable[[], T], seconds: float, late: str) -> T:
    """What is found, as soon as it is true."""
    ends = time.monotonic() + seconds
    while not (what := found()):
        assert time.monotonic() < ends, f"{late} after {seconds:g} s"
        time.sleep(0.1)
    return what
