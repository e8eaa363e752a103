"""Handlers that run for longer than ten minutes, on each broker as it comes, with two replicas, default settings.

python -m tests.rig.long_handlers [NAME ...]   all brokers beside each other, each a server of its own

Only that Kafka's topic has two partitions differs from the defaults, so that both replicas have something to do.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from eventkit import Bus, Command, Context, Event, Service, connect
from eventkit.adapter import Group
from eventkit.contract.checks import fresh_namespace
from eventkit.testing.brokers import NAMES, Broker, provide
from tests.programs import Program

SECONDS = float(os.environ.get("RIG_LONG_SECONDS", "620"))
LONG = 4
"""Messages of each kind that take so long."""
_SHORT = 5.0
"""Seconds between two that take no time."""


class Baked(Event, topic="long.baked", key="name"):
    name: str
    seconds: float = 0.0


class Kneaded(Event, topic="long.baked", key="name"):
    """Handled by a plain function, in a thread."""

    name: str
    seconds: float


class Bake(Command, service="bakery"):
    name: str
    seconds: float


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def bakery() -> Service:
    """The service that each replica runs."""
    service = Service("bakery")

    def began(name: str, context: Context) -> None:
        _say("began", name, context.attempt, context.delivery.deliveries)

    @service.handler
    async def baked(event: Baked, context: Context) -> None:
        began(event.name, context)
        await asyncio.sleep(event.seconds)
        _say("ended", event.name)

    @service.handler
    def kneaded(event: Kneaded, context: Context) -> None:
        began(event.name, context)
        time.sleep(event.seconds)
        _say("ended", event.name)

    @service.handler
    async def bake(command: Bake, context: Context) -> None:
        began(command.name, context)
        await asyncio.sleep(command.seconds)
        _say("ended", command.name)

    return service


async def _replica() -> None:
    """Runs until it is ended, and tells which connections it has, now and then."""
    async with connect(service="bakery") as bus, bus.run(bakery()) as running:
        _say("ready")
        while True:
            await asyncio.sleep(10)
            _say("connections", *_connections(), "health", running.health())


def _connections() -> list[str]:
    """Our ends of those to the broker: a connection that is made anew has another port."""
    mine = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _exists(fd)}
    found = []
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *rest = line.split()
        if f"socket:[{rest[5]}]" in mine and state == "01":
            found.append(str(int(local.rpartition(":")[2], 16)))
    return sorted(found)


def _exists(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


async def _drive(broker: Broker, replicas: list[Program], namespace: str) -> str:
    """Sends what takes long, then what does not, until all has ended; says what was seen."""
    names = [f"{kind}-{n}" for kind in ("event", "thread", "command") for n in range(LONG)]
    async with connect(broker.name, broker.url, namespace=namespace, service="client") as bus:
        (group, _) = bakery().groups()["bakery"]
        for number in range(LONG):
            await bus.publish(Baked(name=f"event-{number}", seconds=SECONDS))
            await bus.publish(Kneaded(name=f"thread-{number}", seconds=SECONDS))
            await bus.send(Bake(name=f"command-{number}", seconds=SECONDS))
        ends = time.monotonic() + SECONDS + 60
        short = 0
        while time.monotonic() < ends and sum(_ended(replicas)[name] for name in names) < len(names):
            await bus.publish(Baked(name=f"short-{short}"))
            short += 1
            await asyncio.sleep(_SHORT)
        await asyncio.sleep(15)  # what is not settled would come again, and what is not done yet be done
        began, ended = _count(replicas, "began"), _ended(replicas)
        for replica in replicas:
            replica.tell(signal.SIGKILL)
            replica.wait()
        backlog = await _left(bus, group)
    expected = Counter([*names, *(f"short-{n}" for n in range(short))])
    each = [Counter(line.split()[1] for line in _lines(one, "began")) for one in replicas]
    again = [
        line for one in replicas for line in _lines(one, "began") if line.split()[2:] not in (["1", "1"], ["1", "None"])
    ]
    return (
        f"{broker.name} {broker.version}, {datetime.now(UTC):%Y-%m-%d}: long {SECONDS:g} s, {short} short; "
        f"each began once: {began == expected}, each ended once: {ended == expected}, by replica "
        f"{[(sum(one[name] for name in names), one.total()) for one in each]} (long, all), "
        f"came as another than first delivery: {again}, both killed then: {backlog}; connections "
        + "; ".join(_kept(one) for one in replicas)
    )


async def _left(bus: Bus, group: Group) -> str:
    """What had not been settled waits for the next ones, once the broker misses these."""
    ends = time.monotonic() + 90
    while (found := await bus.adapter.measure(group)).consumers and time.monotonic() < ends:
        await asyncio.sleep(0.5)
    return f"{found.ready} ready, {found.in_flight} in flight, {found.consumers} readers"


def _lines(replica: Program, word: str) -> list[str]:
    return [line for line in replica.output.splitlines() if line.startswith(f"{word} ")]


def _count(replicas: list[Program], word: str) -> Counter[str]:
    return Counter(line.split()[1] for one in replicas for line in _lines(one, word))


def _ended(replicas: list[Program]) -> Counter[str]:
    return _count(replicas, "ended")


def _kept(replica: Program) -> str:
    said = [line.partition(" health ") for line in _lines(replica, "connections")]
    ports = {one.removeprefix("connections ") for one, _, _ in said}
    health = {rest for _, _, rest in said}
    return f"{sorted(ports)} {sorted(health)} in {len(said)} looks"


def _run(name: str) -> str:
    namespace = fresh_namespace()
    with provide(name) as broker:
        environment = {"EVENTKIT_BROKER": name, "EVENTKIT_URL": broker.url, "EVENTKIT_NAMESPACE": namespace}
        if name == "kafka":
            environment["EVENTKIT_KAFKA__PARTITIONS"] = "2"
        command = (sys.executable, "-m", "tests.rig.long_handlers", "--replica")
        with Program(*command, env=environment) as one, Program(*command, env=environment) as two:
            for replica in (one, two):
                replica.wait_for("ready", 90)
            said = asyncio.run(_drive(broker, [one, two], namespace))
            other = [
                line
                for replica in (one, two)
                for line in replica.output.splitlines()
                if line.split()[0] not in ("began", "ended", "connections", "ready")
            ]
            return "\n  ".join([said, *other])


def main() -> None:
    """`--replica`: one of the two."""
    if sys.argv[1:] == ["--replica"]:
        asyncio.run(_replica())
        return
    names = sys.argv[1:] or list(NAMES)
    with ThreadPoolExecutor(len(names)) as pool:
        for said in pool.map(_run, names):
            _say(said)


if __name__ == "__main__":
    main()
