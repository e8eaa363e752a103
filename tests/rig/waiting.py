"""What thousands of delayed messages cost a group: time of others, memory of its process, what status says of them.

python -m tests.rig.waiting redis [--count 1000 --count 20000]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from statistics import median

from eventkit import Bus, Event, Retry, Service, connect
from eventkit.adapter import Backlog
from eventkit.contract.checks import fresh_namespace
from eventkit.testing.brokers import NAMES, Broker, provide
from tests.programs import Program

_HOUR = timedelta(hours=1)
_TOGETHER = 500


class Later(Event, topic="waiting.work", key="key"):
    """Published with a delay."""

    key: str
    number: int
    text: str = "x" * 200


class Fails(Event, topic="waiting.work", key="key"):
    """Waits for its second attempt."""

    key: str
    number: int
    text: str = "x" * 200


class Now(Event, topic="waiting.work", key="key"):
    """Handled at once."""

    key: str
    number: int
    sent: float


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def service() -> Service:
    """The group under test."""
    found = Service("worker", retry=Retry(attempts=2, first_delay=_HOUR, max_delay=_HOUR, jitter=0))

    @found.handler
    async def later(event: Later) -> None:
        _say("early", event.number)

    @found.handler
    async def fails(event: Fails) -> None:
        raise RuntimeError("in an hour, perhaps")

    @found.handler
    async def now(event: Now) -> None:
        _say("now", event.number, f"{time.time() - event.sent:.4f}", _resident(), f"{time.process_time():.3f}")

    return found


def _resident() -> int:
    """Of this process, in kB."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


async def _replica() -> None:
    async with connect(service="worker") as bus, bus.run(service()):
        _say("ready")
        await asyncio.Event().wait()


class _Replica:
    """A replica in a process of its own, and what is published for it to handle at once."""

    def __init__(self, program: Program, bus: Bus) -> None:
        self._program, self._bus = program, bus
        self.last = -1

    async def one(self) -> None:
        self.last += 1
        await self._bus.publish(Now(key=f"k{self.last % 50}", number=self.last, sent=time.time()))

    async def handled(self, first: int) -> list[tuple[float, int, float]]:
        """Of all from `first` on: seconds until each was begun, kB and CPU seconds then."""
        while True:
            lines = [line.split() for line in self._program.output.splitlines()]
            found = {int(words[1]): words[2:] for words in lines if words[:1] == ["now"]}
            if all(number in found for number in range(first, self.last + 1)):
                return [(float(a), int(b), float(c)) for a, b, c in (found[n] for n in range(first, self.last + 1))]
            await asyncio.sleep(0.05)

    async def some(self, count: int, apart: float) -> list[tuple[float, int, float]]:
        first = self.last + 1
        for _ in range(count):
            await self.one()
            await asyncio.sleep(apart)
        return await self.handled(first)


async def _until(measured: Callable[[], object], holds: Callable[[Backlog], bool], within: float) -> Backlog:
    ends = time.monotonic() + within
    while True:
        found: Backlog = await measured()  # type: ignore[misc]
        if holds(found):
            return found
        if time.monotonic() > ends:
            raise SystemExit(f"not within {within:g} s: {found}")
        await asyncio.sleep(0.5)


async def _drive(broker: Broker, program: Callable[[], Program], namespace: str, count: int) -> None:
    failing = count // 4
    (group, _) = service().groups()["worker"]

    def connected(source: str) -> Bus:
        return connect(broker.name, broker.url, namespace=namespace, service=source)

    async def measured() -> Backlog:
        async with connected("watcher") as watcher:  # anew: what it knows of is what anybody sees
            return await watcher.adapter.measure(group)

    async with connected("client") as bus:
        with program() as process:
            process.wait_for("ready", 60)
            replica = _Replica(process, bus)
            for _ in range(3):
                await bus.publish_many([Now(key=f"k{n % 50}", number=10**9 + n, sent=time.time()) for n in range(1000)])
                await replica.some(50, 0.005)
            _, before, _ = (await replica.some(20, 0.05))[-1]
            first, began = replica.last + 1, time.monotonic()
            stop = asyncio.Event()

            async def others() -> None:
                while not stop.is_set():
                    await replica.one()
                    await asyncio.sleep(0.05)

            going = asyncio.create_task(others())
            for at in range(0, count, _TOGETHER):
                await asyncio.gather(
                    *(bus.publish(Later(key=f"k{n % 50}", number=n), delay=_HOUR) for n in range(at, at + _TOGETHER))
                )
            await bus.publish_many([Fails(key=f"k{n % 50}", number=n) for n in range(failing)])
            published = time.monotonic() - began
            found = await _until(measured, lambda it: it.delayed == count + failing and not it.ready, 300)
            parked = time.monotonic() - began
            stop.set()
            await going
            during = await replica.handled(first)
            after = await replica.some(200, 0.02)
            _, _, busy = after[-1]
            await asyncio.sleep(10)
            _, resident, idle = (await replica.some(1, 0))[0]
            assert "early" not in process.output, process.output
            _say(
                f"{broker.name} {broker.version}, {count} delayed, {failing} to be retried: published in "
                f"{published:.1f} s, parked after {parked:.1f} s; others meanwhile ({len(during)}) {_times(during)}, "
                f"afterwards ({len(after)}) {_times(after)}; memory {before / 1024:.1f} -> {resident / 1024:.1f} MB "
                f"(most {max(kb for _, kb, _ in during) / 1024:.1f}), CPU {(idle - busy) * 1000:.0f} ms in 10 s "
                f"of nothing; ready {found.ready}, in flight {found.in_flight}, delayed {found.delayed}"
            )
        with program() as process:
            began = time.monotonic()
            process.wait_for("ready", 60)
            ready = time.monotonic() - began
            replica = _Replica(process, bus)
            ((first_one, _, _),) = await replica.some(1, 0)
            await asyncio.sleep(5)
            after = await replica.some(100, 0.02)
            found = await _until(measured, lambda it: it.delayed == count + failing and not it.ready, 60)
            assert "early" not in process.output, process.output
            _say(
                f"  another replica: ready after {ready:.1f} s, the first was handled {first_one * 1000:.0f} ms after "
                f"it was published, others {_times(after)}; memory {after[-1][1] / 1024:.1f} MB; ready {found.ready}, "
                f"in flight {found.in_flight}, delayed {found.delayed}"
            )


def _times(handled: list[tuple[float, int, float]]) -> str:
    times = [seconds * 1000 for seconds, _, _ in handled]
    return f"median {median(times):.0f} ms, most {max(times):.0f} ms"


def main() -> None:
    """`--replica`: the process that is measured."""
    if sys.argv[1:] == ["--replica"]:
        asyncio.run(_replica())
        return
    parser = argparse.ArgumentParser(prog="python -m tests.rig.waiting")
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--count", type=int, action="append", help="how many are delayed (1000 and 20000)")
    options = parser.parse_args()
    for name in options.names or NAMES:
        with provide(name) as broker:
            for count in options.count or (1_000, 20_000):
                namespace = fresh_namespace()
                environment = {"EVENTKIT_BROKER": name, "EVENTKIT_URL": broker.url, "EVENTKIT_NAMESPACE": namespace}
                asyncio.run(_drive(broker, _program(environment), namespace, count))


def _program(environment: dict[str, str]) -> Callable[[], Program]:
    return lambda: Program(sys.executable, "-m", "tests.rig.waiting", "--replica", env=environment)


if __name__ == "__main__":
    main()
