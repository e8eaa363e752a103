"""The five backends that the contract runs on."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

import eventkit.memory
from eventkit import discovery
from eventkit.adapter import Adapter, Connection
from eventkit.contract.checks import Faults, Vacuous
from eventkit.testing.brokers import NAMES, Broker, provide
from tests import ageing, foreign
from tests.breakable import Breakable

ALL = ("memory", *NAMES)

_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "redis": {"lease": timedelta(seconds=3)},
    "nats": {"lease": 3.0},
    "kafka": {"partitions": 2, "metadata_age": timedelta(seconds=1)},
}
"""Leases are shorter than by default, so that a check of what follows a crash need not wait long. Kafka's brokers make
topics of one partition unless told otherwise, and replicas share only what has more; more of them are noticed soon."""


@dataclass
class Memory:
    """The adapter without a broker."""

    name: str = "memory"

    def adapter(self, namespace: str, /) -> Adapter:
        return eventkit.memory.MemoryAdapter(Connection(url=None, namespace=namespace, client="contract"))

    def unreachable(self, namespace: str, /) -> Adapter | None:
        return None

    def faults(self) -> Faults | None:
        return None

    def next_release(self, namespace: str, /) -> Adapter:
        return self.adapter(namespace)

    def grow(self, namespace: str, topic: str, /) -> None:
        raise Vacuous("a topic has no partitions there")

    def forget(self, namespace: str, topic: str, /) -> None:
        raise Vacuous("a group has a queue of its own there, which keeps all until it is settled")


@dataclass
class Real:
    """A real broker and the adapter for it."""

    name: str
    url: str
    breakable: Callable[[], Faults]
    """Gives one that may be broken; starts it when it is first asked for."""

    def adapter(self, namespace: str, /) -> Adapter:
        return self._adapter(namespace, self.url)

    def unreachable(self, namespace: str, /) -> Adapter | None:
        parts = urlsplit(self.url)
        user, at, _ = parts.netloc.rpartition("@")
        return self._adapter(namespace, urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{_closed_port()}")))

    def faults(self) -> Faults | None:
        return self.breakable()

    @property
    def no_text(self) -> Mapping[str, object]:
        return foreign.NO_TEXT[self.name]

    def put(self, namespace: str, topic: str, body: bytes, headers: Mapping[str, object], /) -> None:
        foreign.PUT[self.name](self.url, foreign.channel(self.name, namespace, topic), body, headers)

    def next_release(self, namespace: str, /) -> Adapter:
        return self._adapter(namespace, self.url, ageing.NEXT[self.name])

    def grow(self, namespace: str, topic: str, /) -> None:
        ageing.grow(self.name, self.url, namespace, topic)

    def forget(self, namespace: str, topic: str, /) -> None:
        ageing.forget(self.name, self.url, namespace, topic)

    def _adapter(self, namespace: str, url: str, changed: Mapping[str, Any] | None = None) -> Adapter:
        made = discovery.load(self.name)
        settings = (
            None if made.settings is None else made.settings(**{**_SETTINGS.get(self.name, {}), **(changed or {})})
        )
        return made(Connection(url=SecretStr(url), namespace=namespace, client="contract", settings=settings))


class Brokers:
    """Real brokers, each provided once. Asked for early, they start side by side while the tests go on."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=len(NAMES), thread_name_prefix="broker")
        self._lock = Lock()
        self._asked: dict[str, Future[Broker]] = {}
        self._breakable: dict[str, Future[Breakable]] = {}
        self.seconds: dict[str, float] = {}
        """How long each took to be provided."""

    def ask(self, *names: str) -> None:
        """Have these provided: returns at once."""
        with self._lock:
            for name in names:
                if name not in self._asked:
                    self._asked[name] = self._pool.submit(self._provide, name)

    def get(self, name: str) -> Broker:
        """The broker, as soon as it is there; raises BrokerUnavailable."""
        self.ask(name)
        return self._asked[name].result()

    def breakable(self, name: str) -> Breakable:
        """One that may be broken, for the tests of this run that do so, one after the other. Raises
        BrokerUnavailable."""
        self.ask_breakable(name)
        return self._breakable[name].result()

    def ask_breakable(self, *names: str) -> None:
        """Have these started: returns at once."""
        with self._lock:
            for name in names:
                if name not in self._breakable:
                    self._breakable[name] = self._pool.submit(Breakable, name)

    def stop(self) -> None:
        """End all that were started."""
        self._pool.shutdown(wait=True)
        for started in self._breakable.values():
            if started.exception() is None:
                started.result().stop()
        for asked in self._asked.values():
            if asked.exception() is None:
                asked.result().stop()

    def _provide(self, name: str) -> Broker:
        began = time.monotonic()
        broker = provide(name)
        self.seconds[name] = time.monotonic() - began
        return broker


def _closed_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port
