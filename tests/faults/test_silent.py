"""Queues on RabbitMQ that are there and confirm nothing: the broker was killed right after they were declared."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from eventkit import headers as h
from eventkit.adapter import DONE, Address, Group, Message, Provision
from eventkit.contract.checks import eventually, fresh_namespace
from eventkit.contract.receiving import receive
from eventkit_rabbit import delay
from eventkit_rabbit.adapter import RabbitAdapter
from eventkit_rabbit.running import Running
from eventkit_rabbit.silent import Silent
from tests.breakable import Breakable
from tests.wanted import wanted

GROUP = Group("shipping", (Address("topic", "orders"),))
SETTINGS = {"publish_timeout": "PT3S"}


@pytest.fixture
def broken(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Breakable:
    if "rabbit" not in wanted(pytestconfig):
        pytest.skip("rabbit is not asked for")
    found = request.getfixturevalue("breakable")("rabbit")
    assert isinstance(found, Breakable)
    return found


def copy(address: Address, number: int, due: datetime | None = None) -> Message:
    headers = {h.ID: str(number), h.TYPE: "OrderPlaced", h.MESSAGE_ID: f"m-{number}"}
    return Message(address, "OrderPlaced", None, headers, b"{}", due)


async def crash(broken: Breakable) -> None:
    await asyncio.to_thread(broken.kill)
    await asyncio.to_thread(broken.start)


async def answer(adapter: RabbitAdapter, message: Message) -> Exception | None:
    return (await adapter.publish([message]))[0]


async def started(broken: Breakable, namespace: str) -> RabbitAdapter:
    adapter = broken.adapter(namespace, **SETTINGS)
    assert isinstance(adapter, RabbitAdapter)
    await adapter.start(30)
    return adapter


def test_a_silent_delay_queue_is_passed_by(broken: Breakable, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        namespace = fresh_namespace()
        adapter = await started(broken, namespace)
        try:
            await adapter.provision([GROUP], Provision.CREATE)
            await asyncio.sleep(broken.young)
            receiving = await receive(adapter, GROUP, settle_with=DONE)
            rung = await adapter._now().topology.create_rung(GROUP.name, "250ms")
            await crash(broken)
            await eventually(lambda: adapter.error is None, "it is connected again", 30)
            answers = []
            for _ in range(20):
                answers.append(await answer(adapter, copy(GROUP.retry, 1, datetime.now(UTC) + timedelta(seconds=0.2))))
                if answers[-1] is None:
                    break
            assert answers[-1] is None
            await eventually(lambda: bool(receiving.got), "it is delivered", 10)
            said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
            if not said:
                pytest.skip(f"{broken.broker.version} finds a queue again that was declared right before a kill")
            assert len(said) == 1
            assert f"the queue {rung} on RabbitMQ confirms nothing" in said[0]
            assert adapter.error is None
            assert rung is not None
            assert adapter._now().topology.silent.is_passed_by(rung)
        finally:
            await adapter.stop(5)

    asyncio.run(work())


def test_health_is_red_while_a_group_is_silent(broken: Breakable, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        namespace = fresh_namespace()
        adapter = await started(broken, namespace)
        queue = f"{namespace}.{GROUP.name}"
        try:
            await adapter.provision([GROUP], Provision.CREATE)
            await crash(broken)
            await eventually(lambda: adapter.error is None, "it is connected again", 30)
            for _ in range(20):
                said = await answer(adapter, copy(GROUP.retry, 1))
                if said is None:
                    pytest.skip(f"{broken.broker.version} finds a queue again that was declared right before a kill")
                if queue in str(adapter.error):
                    break
            await eventually(lambda: adapter._now()._copies.now() is not None, "it is connected again", 10)
            assert f"the queue {queue} on RabbitMQ confirms nothing" in str(adapter.error)
            assert f"rabbitmq-queues quorum_status {queue}" in caplog.text
            other = Group("billing", ())
            await adapter.provision([other], Provision.CREATE)
            assert await answer(adapter, copy(other.retry, 2)) is None, "another queue is not held up"
        finally:
            await adapter.stop(5)

    asyncio.run(work())


# the pure parts


def test_others_stand_in_for_a_rung() -> None:
    assert list(delay.others(86_400_000))[:2] == ["14h", "9h"]
    assert list(delay.others(1))[:2] == ["500ms", "1s"]
    assert sorted([delay.rung(2_500), *delay.others(2_500)]) == sorted(delay.RUNGS)
    assert delay.length("14h") == 14 * 3_600_000


def test_a_delay_queue_is_passed_by_for_a_while() -> None:
    now = [0.0]
    silent = Silent(lambda: now[0])
    error = silent.found("orders.retry:1s", 5, can_be_passed_by=True)
    assert "orders.retry:1s" in str(error)
    assert silent.is_passed_by("orders.retry:1s")
    assert not silent.is_passed_by("orders.retry:2s")
    assert silent.error is None, "nothing waits for it"
    now[0] = 601.0
    assert not silent.is_passed_by("orders.retry:1s")


def test_a_queue_without_a_substitute_is_an_error_until_it_speaks() -> None:
    silent = Silent()
    error = silent.found("orders", 5, can_be_passed_by=False)
    assert silent.error is error
    assert not silent.is_passed_by("orders")
    silent.speaks("orders")
    assert silent.error is None


def test_what_went_to_a_queue_that_a_crash_takes_is_not_confirmed_over_the_next_connection() -> None:
    async def work() -> None:
        running = Running.__new__(Running)
        loop = asyncio.get_running_loop()
        one, two = (cast("Any", SimpleNamespace(lost=loop.create_future())) for _ in range(2))
        jobs = [cast("Any", SimpleNamespace(place=0, route=SimpleNamespace(routing_key="orders.retry:1s")))]
        young = {"orders.retry:1s": loop.time() + 0.05}
        for now, confirmed in ((one, True), (two, False), (None, False)):
            running._copies = cast("Any", SimpleNamespace(now=lambda now=now: now))
            answers: list[Exception | None] = [None]
            await running._mature(jobs, answers, one, young)
            assert (answers[0] is None) is confirmed
            assert not confirmed or loop.time() > young["orders.retry:1s"]
        running.topology = cast("Any", SimpleNamespace(young=young))
        assert running._young(jobs) == {}, "it is safe by now"

    asyncio.run(work())
