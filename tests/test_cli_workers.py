"""`eventkit run --workers`: several processes that share the work, watched over, restarted and drained."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import eventkit
from eventkit.cli.run import _Order
from eventkit.contract.checks import fresh_namespace
from eventkit.processes.supervisor import _Slot
from eventkit.processes.worker import Assignment
from eventkit.testing.brokers import Broker
from tests.programs import EVENTKIT, Program
from tests.wanted import wanted

_WORK = """
import asyncio
import eventkit

class Work(eventkit.Event, topic="work", key="number"):
    number: int
    seconds: float = 0.02

service = eventkit.Service("work", concurrency=2)

@service.handler
async def work(event: Work) -> None:
    await asyncio.sleep(event.seconds)
"""
_TWO = (*EVENTKIT, "run", "work:service", "--workers", "2", "--log-format", "json")
_QUICK = {
    "redis": {"EVENTKIT_REDIS__LEASE": "PT3S"},
    "nats": {"EVENTKIT_NATS__LEASE": "PT3S"},
    "kafka": {"EVENTKIT_KAFKA__PARTITIONS": "4"},
}
"""Short leases, so that what a killed worker held comes back soon; and partitions to share."""


class Work(eventkit.Event, topic="work", key="number"):
    number: int
    seconds: float = 0.02


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = [name for name in wanted(metafunc.config) if name != "memory"]
    if "real" in metafunc.fixturenames:
        metafunc.parametrize("real", names)
    if "one_real" in metafunc.fixturenames:  # what does not depend on the broker
        metafunc.parametrize("one_real", names[:1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(_WORK)
    return tmp_path


def settings(broker: Broker) -> dict[str, str]:
    return {
        "EVENTKIT_BROKER": broker.name,
        "EVENTKIT_URL": broker.url,
        "EVENTKIT_NAMESPACE": fresh_namespace(),
        **_QUICK.get(broker.name, {}),
    }


def publish(env: Mapping[str, str], *events: Work) -> None:
    async def now() -> None:
        async with eventkit.connect(
            env["EVENTKIT_BROKER"], env["EVENTKIT_URL"], namespace=env["EVENTKIT_NAMESPACE"]
        ) as bus:
            await bus.publish_many(events)

    asyncio.run(now())


def records(program: Program) -> Iterator[dict[str, Any]]:
    for line in program.output.splitlines():
        yield json.loads(line)


def until(true: Callable[[], bool], program: Program, seconds: float = 60, *, killed: bool = False) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, program.output
        assert killed or not program.ended, program.output
        time.sleep(0.05)


def running(program: Program) -> dict[int, int]:
    """The process of each worker that has said that it runs, the newest."""
    return {one["worker"]: one["process"] for one in records(program) if "is running on" in one["message"]}


def handled(program: Program) -> dict[str, set[int]]:
    """By key: which processes have handled it."""
    found: dict[str, set[int]] = {}
    for one in records(program):
        if one["message"].startswith("work: handled"):
            found.setdefault(one["message_key"], set()).add(one["process"])
    return found


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")  # a zombie whose new parent has not looked yet has ended, too
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_workers_share_the_work_and_one_that_is_killed_is_replaced(
    folder: Path, real: str, broker: Callable[[str], Broker]
) -> None:
    env = settings(broker(real))
    with Program(*_TWO, cwd=folder, env=env) as two:
        until(lambda: set(running(two)) == {1, 2}, two)
        before = running(two)
        publish(env, *(Work(number=number) for number in range(100)))
        until(lambda: len(handled(two)) >= 20, two)
        os.kill(before[2], signal.SIGKILL)
        until(lambda: running(two)[2] != before[2], two)
        publish(env, *(Work(number=number) for number in range(100, 200)))
        until(lambda: len(handled(two)) == 200, two)
        after = running(two)
        assert after[1] == before[1], "the other one was left alone"
        busy = set().union(*handled(two).values())
        assert set(before.values()) <= busy, "both had work"
        assert after[2] in busy, "so has the one that took its place"
        said = [one for one in records(two) if "it is started again" in one["message"]]
        assert [(one["level"], one["worker"]) for one in said] == [("error", 0)]
        assert f"worker 2 (pid {before[2]}) was ended by SIGKILL; it is started again in 0.5 s" in said[0]["message"]
        two.tell(signal.SIGTERM)
        assert two.wait(30) == 0, two.output
        assert sum("stopped work in" in one["message"] for one in records(two)) == 2
    assert not any(map(alive, after.values()))


def test_a_signal_drains_all_even_when_they_are_told_themselves(
    folder: Path, one_real: str, broker: Callable[[str], Broker]
) -> None:
    env = settings(broker(one_real))
    with Program(*_TWO, cwd=folder, env=env) as two:
        until(lambda: set(running(two)) == {1, 2}, two)
        workers = running(two).values()
        publish(env, *(Work(number=number, seconds=1.5) for number in range(4)))
        _begun(two, env)
        for worker in workers:  # as systemd does: all processes of a unit are told
            os.kill(worker, signal.SIGTERM)
        two.tell(signal.SIGTERM)
        assert two.wait(30) == 0, two.output
        assert handled(two), "what ran was finished"
        assert not any(map(alive, workers))


def _begun(program: Program, env: Mapping[str, str]) -> None:
    """Until a worker is inside a handler: its group has deliveries that are not settled."""

    async def look() -> bool:
        name, url = env["EVENTKIT_BROKER"], env["EVENTKIT_URL"]
        async with eventkit.connect(name, url, namespace=env["EVENTKIT_NAMESPACE"]) as bus:
            found = await bus.adapter.measure(_group())
            return bool(found.in_flight)

    until(lambda: asyncio.run(look()), program, 20)


def _group() -> eventkit.adapter.Group:
    service = eventkit.Service("work")

    @service.handler
    async def work(event: Work) -> None: ...

    return service.groups()["work"][0]


def test_a_second_signal_ends_all_at_once(folder: Path, one_real: str, broker: Callable[[str], Broker]) -> None:
    env = settings(broker(one_real))
    with Program(*_TWO, cwd=folder, env=env) as two:
        until(lambda: set(running(two)) == {1, 2}, two)
        workers = running(two).values()
        publish(env, *(Work(number=number, seconds=30) for number in range(8)))
        _begun(two, env)
        two.tell(signal.SIGINT)
        two.wait_for("SIGINT came: 2 workers finish what runs")
        two.tell(signal.SIGINT)
        assert two.wait(5) == 128 + signal.SIGINT
        assert not any(map(alive, workers))


def test_workers_drain_and_end_when_the_one_that_watches_is_killed(
    folder: Path, one_real: str, broker: Callable[[str], Broker]
) -> None:
    env = settings(broker(one_real))
    with Program(*_TWO, cwd=folder, env=env) as two:
        until(lambda: set(running(two)) == {1, 2}, two)
        workers = list(running(two).values())
        two.tell(signal.SIGKILL)
        try:
            until(lambda: not any(map(alive, workers)), two, 15, killed=True)
        finally:
            for worker in filter(alive, workers):
                os.kill(worker, signal.SIGKILL)
        assert two.output.count("the process that watches over this one is gone") == 2
        assert two.output.count("stopped work in") == 2


def test_what_is_wrong_at_the_start_is_said_once(folder: Path) -> None:
    env = {"EVENTKIT_BROKER": "redis", "EVENTKIT_URL": "redis://someone:s3cret@127.0.0.1:1"}
    with Program(*EVENTKIT, "run", "work:service", "--workers", "3", cwd=folder, env=env) as three:
        assert three.wait(40) == 1
        assert three.output.startswith("eventkit: cannot connect to redis within"), three.output
        assert three.output.count("\n") == 1, three.output
        assert "s3cret" not in three.output


def test_memory_cannot_be_shared(folder: Path) -> None:
    with Program(*EVENTKIT, "run", "work:service", "--workers", "2", cwd=folder) as program:
        assert program.wait(20) == 2
        assert re.fullmatch(r"eventkit: --workers: on the memory broker .*\n", program.output)


def test_one_that_dies_again_and_again_waits_longer_each_time() -> None:
    slot = _Slot(1)
    delays = []
    for _ in range(9):
        slot.failures += 1
        delays.append(slot.delay())
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_what_a_worker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENTKIT_HEALTH_PORT", raising=False)
    url = "redis://someone:s3cret@there"
    order = _Order(["a:b"], "redis", url, Path("x.env"), 3, "info", "json", 8000, "0.0.0.0", debug=True)
    assert " ".join(order.arguments(2)) == (
        "--env-file x.env --workers 3 --log-level info --log-format json --health-port 8001 --health-host 0.0.0.0 "
        "--debug a:b"
    ), "a list of processes shows no password"
    assert order.environment({"EVENTKIT_URL": "before", "PATH": "p"}) == {
        "EVENTKIT_BROKER": "redis",
        "EVENTKIT_URL": url,
        "PATH": "p",
    }
    ports = [replace(order, health_port=port).port(3) for port in (None, 0, 9000)]
    assert ports == [None, 0, 9002]


def test_an_assignment_is_read_as_it_was_said() -> None:
    told = Assignment(3, 17, True)
    assert Assignment.read(str(told)) == told
    with pytest.raises(ValueError):
        Assignment.read("3:17")
