"""Where commands are run, which broker they meet, and a service that they look at."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import eventkit
from eventkit import Retry, Service
from eventkit.contract.checks import fresh_namespace
from eventkit.testing.brokers import Broker
from tests.programs import EVENTKIT, Program

SHOP = """
import eventkit

class Parcel(eventkit.Event, topic="parcels", key="name"):
    name: str

class Sent(eventkit.Event, topic="sent"):
    name: str

class Weigh(eventkit.Command, service="worker"):
    number: int

service = eventkit.Service("worker")

@service.handler
async def parcel(event: Parcel) -> Sent: ...

@service.handler
async def weigh(command: Weigh) -> None: ...

@service.handler(group="audit")
async def audit(event: Parcel) -> None: ...
"""

MASKS = """
def mask(path, value):
    return "***" if path == "name" else value
"""


class Parcel(eventkit.Event, topic="parcels", key="name"):
    name: str


class Weigh(eventkit.Command, service="worker"):
    number: int


@dataclass
class Place:
    """Where the commands run, and which broker they meet."""

    folder: Path
    env: Mapping[str, str]

    def hiding(self, what: str) -> Place:
        return replace(self, env={**self.env, "EVENTKIT_REDACT": what})

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Its exit code and all that it wrote."""
        return await asyncio.to_thread(self.run_blocking, *arguments)

    def run_blocking(self, *arguments: str) -> tuple[int, str]:
        with Program(*EVENTKIT, *arguments, cwd=self.folder, env=self.env) as program:
            return program.wait(60), program.output

    async def json(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects that it wrote."""
        code, output = await self.run(*arguments, "--json")
        assert code == 0, output
        return [json.loads(line) for line in output.splitlines()]


class Services:
    """The worker, failing until it is told not to, and another group."""

    def __init__(self) -> None:
        self.works = False
        self.handled: Counter[str] = Counter()
        self.audited: Counter[str] = Counter()
        self.service = Service("worker", retry=Retry(attempts=1))

        @self.service.handler
        async def parcel(event: Parcel) -> None:
            if not self.works:
                raise ValueError(f"no {event.name}\nbut \x1b[31mred")
            self.handled[event.name] += 1

        @self.service.handler
        async def weigh(command: Weigh) -> None:
            raise eventkit.GiveUp("too heavy")

        @self.service.handler(group="audit")
        async def audit(event: Parcel) -> None:
            self.audited[event.name] += 1


def alone_in(folder: Path) -> Place:
    """With the shop's module, and no broker."""
    (folder / "shop.py").write_text(SHOP)
    (folder / "masks.py").write_text(MASKS)
    return Place(folder, {})


def beside(place: Place, real: str, broker: Broker) -> Place:
    """The same, with a broker and a namespace of its own."""
    env = {"EVENTKIT_BROKER": real, "EVENTKIT_URL": broker.url, "EVENTKIT_NAMESPACE": fresh_namespace()}
    return Place(place.folder, env)


@asynccontextmanager
async def running(place: Place) -> AsyncIterator[tuple[eventkit.Bus, Services]]:
    services = Services()
    env = place.env
    bus = eventkit.connect(env["EVENTKIT_BROKER"], env["EVENTKIT_URL"], namespace=env["EVENTKIT_NAMESPACE"])
    async with bus, bus.run(services.service):
        yield bus, services
