"""The pytest plugin, in a run of its own, in memory and on real brokers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eventkit.testing.brokers import Broker
from tests.backends import ALL
from tests.wanted import wanted

TESTS = """
import asyncio
from datetime import timedelta

import pytest
from eventkit import Command, Event, GiveUp, Reject, Retry, Service
from eventkit.once import MemoryStore


class Asked(Event, topic="questions", key="number"):
    number: int


class Answered(Event, topic="answers", key="number"):
    number: int


class Double(Command[int], service="sums"):
    number: int


asking = Service("asking", retry=Retry(attempts=2, first_delay=timedelta(milliseconds=50)))
reading = Service("reading")
sums = Service("sums")
failed = []


@asking.handler
async def asked(event: Asked) -> Answered:
    if event.number == 2 and len(failed) < 1:
        failed.append(event.number)
        raise RuntimeError("once")
    if event.number == 3:
        raise GiveUp("never")
    return Answered(number=event.number)


@reading.handler
async def answered(event: Answered) -> None: ...


@reading.handler(group="also")
async def seen(event: Asked) -> None: ...


@sums.handler
async def double(command: Double) -> int:
    if command.number < 0:
        raise Reject("too small")
    return 2 * command.number


def test_all(eventkit_run, eventkit_broker):
    failed.clear()

    async def story():
        async with eventkit_run(asking, reading, sums) as t:
            for number in (1, 2, 3):
                await t.publish(Asked(number=number))
            await t.send(Double(number=-1))
            assert await t.request(Double(number=4)) == 8
            await t.idle()
            assert sorted(event.number for event in t.published(Answered)) == [1, 2]
            assert sorted(event.number for event in t.handled(Answered)) == [1, 2]
            assert sorted(event.number for event in t.handled(Asked, group="reading.also")) == [1, 2, 3]
            assert [event.number for event in t.retried(Asked)] == [2]
            assert t.rejected() == ["too small"]
            (letter,) = t.dead_letters()
            assert (letter.read(Asked).number, letter.attempts) == (3, 1)
            t.assert_published(Answered, number=2, times=1)
            t.assert_sent(Double, number=-1)
            t.assert_handled(Asked, times=5)
            assert [one["data"] for one in t.emitted() if one["by"] == "asking"] == [{"number": 1}, {"number": 2}]
            with pytest.raises(AssertionError, match="was to be published at least once, and was 0 times"):
                t.assert_published(Answered, number=9)
            with pytest.raises(TypeError, match="Answered has no field 'nomber'"):
                t.assert_published(Answered, nomber=9)

    asyncio.run(story())
    print("ran on", eventkit_broker.name if eventkit_broker else "memory")


def test_a_repeat_is_dropped(eventkit_run):
    cautious, paid = Service("cautious"), []

    @cautious.handler(once=MemoryStore())
    async def pay(event: Asked) -> None:
        paid.append(event.number)

    async def story(id):
        async with eventkit_run(cautious) as t:
            await t.publish(Asked(number=1), id=id)
            await t.publish(Asked(number=2), id="another")
            await t.idle()
            return t.handled(Asked)

    assert asyncio.run(story("one")) == [Asked(number=1), Asked(number=2)]
    assert asyncio.run(story("new")) == [Asked(number=1)], "what was handled before is dropped, and not waited for"
    assert paid == [1, 2, 1]


def test_what_hangs_is_named(eventkit_run):
    hanging = Service("hanging")

    @hanging.handler
    async def never(event: Asked) -> None:
        await asyncio.Event().wait()

    async def story():
        async with eventkit_run(hanging) as t:
            await t.publish(Asked(number=1))
            with pytest.raises(AssertionError, match="not idle after 0.3 s"):
                await t.idle(timedelta(seconds=0.3))

    hanging.stop_timeout = timedelta(0)
    asyncio.run(story())
"""


def run(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(TESTS)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("EVENTKIT_", "PYTEST_", "CI"))}
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=folder, env={**clean, **env}, capture_output=True, text=True, timeout=60, check=False
    )


def test_one_test_runs_on_every_broker(
    tmp_path: Path, broker: Callable[[str], Broker], pytestconfig: pytest.Config
) -> None:
    def made_on(name: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / name).mkdir()
        env = {} if name == "memory" else {f"EVENTKIT_TEST_{name.upper()}_URL": broker(name).url}
        return run(tmp_path / name, f"--eventkit-broker={name}", **env)

    names = wanted(pytestconfig)
    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        for name, made in zip(names, pool.map(made_on, names), strict=True):
            assert made.returncode == 0, made.stdout + made.stderr
            assert f"ran on {name}" in made.stdout
            assert "3 passed" in made.stdout


def test_the_broker_is_named_in_the_settings_too(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\neventkit_broker = rabit\n")
    made = run(tmp_path)
    assert made.returncode == 4
    assert f"eventkit_broker = rabit: it is one of {', '.join(ALL)}" in made.stdout + made.stderr


def test_a_broker_that_cannot_be_had_fails_under_ci(tmp_path: Path) -> None:
    nowhere = {"EVENTKIT_TEST_REDIS_URL": "redis://127.0.0.1:1"}
    made = run(tmp_path, "--eventkit-broker=redis", CI="true", **nowhere)
    assert made.returncode == 1
    assert "127.0.0.1:1" in made.stdout
