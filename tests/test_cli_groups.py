"""`eventkit groups` and what `status` says of who reads; and a tail whose broker goes away."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import eventkit
from eventkit.adapter import Address, Backlog, Connection, Group, Waiting
from eventkit.backlogs import Found
from eventkit.cli import watching
from eventkit.cli.backlogs import as_table
from eventkit.contract.checks import eventually
from eventkit.contract.letters import listed
from eventkit.memory import MemoryAdapter
from eventkit.testing.brokers import Broker
from tests.places import Parcel, Place, Weigh, alone_in, beside, running
from tests.programs import EVENTKIT, Program, environment
from tests.prompt import Done, each
from tests.proxy import Proxy
from tests.wanted import wanted

_PROXIED = ("redis", "nats", "rabbit")
"""Kafka's brokers tell their own addresses, and are then met there."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    reals = [name for name in wanted(metafunc.config) if name != "memory"]
    if "real" in metafunc.fixturenames:
        metafunc.parametrize("real", reals[:1] if metafunc.function is test_removing_asks_on_a_terminal else reals)
    if "proxied" in metafunc.fixturenames:
        metafunc.parametrize("proxied", [name for name in reals if name in _PROXIED])


@pytest.fixture
def place(tmp_path: Path, real: str, broker: Callable[[str], Broker]) -> Place:
    return beside(alone_in(tmp_path), real, broker(real))


def _bus(place: Place) -> eventkit.Bus:
    env = place.env
    return eventkit.connect(env["EVENTKIT_BROKER"], env["EVENTKIT_URL"], namespace=env["EVENTKIT_NAMESPACE"])


async def _each(place: Place, *commands: str) -> list[Done]:
    return await asyncio.to_thread(each, place.folder, [command.split() for command in commands], place.env)


def test_groups_are_listed_and_removed(place: Place, real: str) -> None:
    lists = real != "rabbit"

    async def story() -> None:
        created, empty = await _each(place, "topics create shop:service", "groups list --json")
        assert created.code == 0, created.err
        if lists:
            assert [json.loads(line)["group"] for line in empty.out.splitlines()] == ["worker", "worker.audit"]
        else:
            assert (empty.code, empty.out) == (1, "")
            assert "set EVENTKIT_RABBIT__MANAGEMENT to its URL" in empty.err
        async with _bus(place) as bus:  # nobody runs: it waits
            await bus.publish_many([Parcel(name=f"parcel {n}") for n in range(3)])
            await bus.send(Weigh(number=1))

        status, named, by_name, nobody, left = await _each(
            place,
            "status shop:service",
            "status -g worker --json",
            "status -g worker.audit",
            "groups remove worker --force",
            "groups remove worker --yes",
        )
        head, *lines = status.out.splitlines()
        assert head.split("  ")[0] == "group"
        assert head.split()[1:] == ["consumers", "ready", "in", "flight", "retries", "dead", "oldest"]
        assert re.match(r"worker +0 +4 +0 +0 +0 .* nobody reads it$", lines[0]), status.out
        if lists:
            assert re.search(r"\n  topic:parcels +3 +0 +\d+ s\n", status.out), status.out
            assert re.search(r"\n  inbox:worker +1 +0 +\d+ s\n", status.out), status.out
        found = json.loads(named.out)
        assert (found["consumers"], found["ready"], found["in_flight"]) == (0, 4, 0)
        split = {address: waiting["ready"] for address, waiting in found["sources"].items()}
        assert split == ({"topic:parcels": 3, "inbox:worker": 1} if lists else {})
        assert re.search(r"\nworker.audit +0 +3 +0 .* nobody reads it\n", by_name.out), by_name.out
        assert nobody.code == 2
        assert "there is nobody to ask: say --yes" in nobody.err
        assert (left.code, left.out) == (1, "")
        assert left.complaints[-1] == (
            "eventkit: worker is left: 4 messages wait for it (4 ready): they would go with it; "
            "--force removes it all the same"
        )

        async with running(place) as (bus, services):
            await eventually(lambda: services.audited.total() == 3, "what waited is handled")
            await listed(bus, "worker", 4)
            read, status = await _each(place, "groups remove worker worker.audit --force -y", "status shop:service")
            assert (read.code, read.out) == (1, "")
            said = "eventkit: {} is left: 1 consumer reads the group {}: stop its service first, in all replicas"
            assert read.complaints[-2:] == [said.format(name, name) for name in ("worker", "worker.audit")]
            assert re.search(r"\nworker +1 +0 +[-0] +0 +4 +-\n", status.out), status.out

        gone, forced, missing, status, again = await _each(
            place,
            "groups remove worker.audit --yes",
            "groups remove worker --force --yes --json",
            "groups remove worker --yes",
            "status -g worker",
            "groups list",
        )
        assert (gone.code, gone.out) == (0, "worker.audit: removed\n"), gone.err
        assert json.loads(forced.out) == {"group": "worker", "removed": True, "messages": 4}, forced.err
        assert missing.code == status.code == 1
        assert "worker is left: not on this" in missing.err
        assert "worker: not on this" in status.out
        if lists:
            assert (again.code, again.out, again.complaints[-1]) == (0, "", "0 groups")

    asyncio.run(story())


def test_removing_asks_on_a_terminal(place: Place) -> None:
    assert place.run_blocking("topics", "create", "shop:service")[0] == 0
    for answer, said in (("n", ""), ("y", "worker: removed")):
        terminal, its = os.openpty()
        with closing(os.fdopen(terminal, "w")) as keyboard, closing(os.fdopen(its)) as stdin:
            keyboard.write(f"{answer}\n")
            keyboard.flush()
            done = subprocess.run(
                [*EVENTKIT, "groups", "remove", "worker"],
                stdin=stdin,
                capture_output=True,
                text=True,
                env=environment(place.env),
                cwd=place.folder,
                timeout=60,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
        assert "remove the group worker for good? [y/N]" in done.stderr


def test_what_nobody_reads_is_red() -> None:
    split = {Address("topic", "a"): Waiting(4, 0), Address("topic", "b"): Waiting(0, 0)}
    unread = Backlog(4, 0, 0, 0, timedelta(seconds=5), 0, split)
    group = Group("worker", ())
    found = [Found("worker", group, unread), Found("audit", group, replace(unread, consumers=1))]
    lines = list(as_table(found, 100, colour=True))
    assert [line.startswith("\x1b[31m") for line in lines] == [False, True, True, False, False, False, False]
    assert lines[1].endswith("5 s  nobody reads it\x1b[0m")
    assert not any("\x1b" in line for line in as_table(found, 100, colour=False))


@pytest.fixture
def way(proxied: str, broker: Callable[[str], Broker]) -> Iterator[tuple[Proxy, str]]:
    """A way to the broker that can be closed, and the URL of its beginning."""
    url = urlsplit(broker(proxied).url)
    with Proxy() as proxy:
        proxy.to(url.port or 0)
        user, at, _ = url.netloc.rpartition("@")
        yield proxy, url._replace(netloc=f"{user}{at}127.0.0.1:{proxy.port}").geturl()


def test_a_tail_says_that_the_broker_is_gone_and_back(
    tmp_path: Path, proxied: str, broker: Callable[[str], Broker], way: tuple[Proxy, str]
) -> None:
    proxy, url = way
    place = beside(alone_in(tmp_path), proxied, broker(proxied))

    async def publish() -> None:
        async with _bus(place) as bus:
            await bus.publish(Parcel(name="after"))

    assert place.run_blocking("topics", "create", "shop:service")[0] == 0
    with Program(*EVENTKIT, "tail", "parcels", cwd=place.folder, env={**place.env, "EVENTKIT_URL": url}) as tail:
        tail.wait_for("following parcels")
        proxy.refuse()
        tail.wait_for(rf"\n{proxied} is gone \(.+\); what is published meanwhile may be missed\n")
        proxy.mend()
        tail.wait_for(rf"\n{proxied} is back\n")
        for _ in range(20):  # it says so when the connection is back, and reads a moment later
            asyncio.run(publish())
            if '"after"' in tail.output:
                break
        tail.wait_for('"after"')
        assert len([line for line in tail.output.splitlines() if '"after"' not in line]) == 3, tail.output


def test_it_is_said_once_that_a_broker_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    adapter = MemoryAdapter(Connection(url=None, namespace="", client="test"))

    async def main() -> None:
        looking = asyncio.create_task(watching.watch(adapter))
        for error in (None, OSError("away"), TimeoutError("still away"), None):
            adapter.error = error
            await asyncio.sleep(2.5 * watching._LOOK)
        looking.cancel()

    asyncio.run(main())
    assert capsys.readouterr().err.splitlines() == [
        "memory is gone (OSError: away); what is published meanwhile may be missed",
        "memory is back",
    ]
