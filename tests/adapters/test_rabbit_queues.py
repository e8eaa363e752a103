"""How RabbitMQ's queues are made, and which of them are noticed."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("aiormq")

import aiormq
from aiormq.exceptions import ChannelNotFoundEntity, DeliveryError
from pydantic import SecretStr

from eventkit.adapter import Connection, Provision
from eventkit.errors import NotProvisioned, SettingsError
from eventkit.testing.brokers import Broker, BrokerUnavailable, provide
from eventkit.testing.brokers.process import free_port
from eventkit_rabbit import RabbitAdapter, RabbitSettings, publish, waiting
from tests.adapters.test_rabbit import GROUP, TOPIC, Inbox, message, run, soon, until, world


@pytest.fixture
def url(broker: Callable[[str], Broker]) -> str:
    return broker("rabbit").url


@pytest.fixture(scope="module")
def managed() -> Iterator[tuple[str, str]]:
    """The URLs of a broker and of its management API."""
    port = free_port()
    try:
        own = provide("rabbit", settings={"management.tcp.port": str(port), "management.tcp.ip": "127.0.0.1"})
    except BrokerUnavailable as error:
        pytest.skip(str(error))
    with own:
        yield own.url, f"http://127.0.0.1:{port}"


async def adapter(url: str, namespace: str, settings: RabbitSettings) -> RabbitAdapter:
    made = RabbitAdapter(Connection(SecretStr(url), namespace, "test", settings))
    await made.start(10)
    return made


# --- on how many nodes ---


@pytest.mark.parametrize(("old", "new"), [(None, 5), (5, None), (5, 3)])
def test_the_next_release_takes_queues_that_were_made_for_another_number_of_nodes(
    url: str, old: int | None, new: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "eventkit.rabbit")

    async def main() -> None:
        async with world(url, RabbitSettings(replicas=old)) as mine:
            first = await mine.provisioned()
            assert (
                await first.publish([message(GROUP.retry, 1, due=soon(seconds=0.9)), message(TOPIC, 2)]) == [None] * 2
            )
            assert not caplog.records
            second = await adapter(url, mine.namespace, RabbitSettings(replicas=new))
            mine.adapters.append(second)
            await second.provision([GROUP], Provision.CREATE)
            inbox = await mine.consume(second, Inbox())
            assert await second.publish([message(GROUP.retry, 3, due=soon(seconds=0.9))]) == [None]
            await until(lambda: sorted(inbox.ids) == ["1", "2", "3"])
            await first.provision([GROUP], Provision.CREATE)  # the rollback

    run(main())
    said = [record.getMessage() for record in caplog.records]
    if new is None:
        assert said == [], "no number was asked for"
    else:
        (line,) = [line for line in said if f"REPLICAS={new} " in line]
        assert ("without it" if old is None else f"for {old}") in line
        assert "rabbitmq-queues grow" in line


def test_a_queue_that_is_not_ours_is_still_refused(url: str) -> None:
    async def main() -> None:
        async with world(url, RabbitSettings(replicas=3)) as mine:
            made = await mine.adapter()
            connection = await aiormq.connect(url)
            channel = await connection.channel()
            await channel.queue_declare(
                f"{mine.namespace}.shipping",
                durable=True,
                arguments={"x-queue-type": "quorum", "x-max-length": 10, "x-quorum-initial-group-size": 1},
            )
            await connection.close()
            with pytest.raises(NotProvisioned, match="exists with other settings"):
                await made.provision([GROUP], Provision.CREATE)

    run(main())


def test_a_cluster_that_is_too_small_is_refused(managed: tuple[str, str]) -> None:
    url, management = managed

    async def main() -> None:
        namespace = f"t{uuid.uuid4().hex[:10]}"
        small = await adapter(url, namespace, RabbitSettings(replicas=3, management=SecretStr(management)))
        fits = await adapter(url, namespace, RabbitSettings(replicas=1, management=SecretStr(management)))
        try:
            with pytest.raises(SettingsError, match=r"EVENTKIT_RABBIT__REPLICAS is 3.* 1 node: .*set it to 1"):
                await small.provision([GROUP], Provision.CREATE)
            assert await small.groups(["shipping"]) == [], "nothing was made"
            await fits.provision([GROUP], Provision.CREATE)
        finally:
            await small.stop(5)
            await fits.stop(5)

    run(main())


# --- that refuse ---


def test_a_channel_that_was_refused_on_is_left(url: str) -> None:
    """After a node died, RabbitMQ may refuse all on one channel, for ever, and nothing on others."""

    async def main() -> None:
        async with world(url) as mine:
            made = await mine.provisioned()
            assert made._running is not None
            publisher = made._running.publisher
            connection = await aiormq.connect(url)
            channel = await connection.channel()
            full = f"{mine.namespace}.full"
            arguments = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
            await channel.queue_declare(full, durable=True, arguments=arguments)
            await channel.queue_bind(full, f"{mine.namespace}.orders", routing_key="#")
            try:
                inbox = await mine.consume(made, Inbox())
                first, answers = publisher._channel, []
                for number in range(20):
                    answers += await made.publish([message(TOPIC, number)])
                    if isinstance(answers[-1], DeliveryError):
                        break
                assert isinstance(answers[-1], DeliveryError)
                assert publisher._channel is first, (
                    "what is full refuses on each channel: none is made for each refusal"
                )
                await channel.queue_delete(full)
                await asyncio.sleep(publish._REFUSING)
                many = [message(TOPIC, number) for number in range(100, 400)]
                calls = [made.publish(many[at : at + 30]) for at in range(0, 300, 30)]
                assert [answer for found in await asyncio.gather(*calls) for answer in found] == [None] * 300
                assert publisher._channel is not first
                await until(lambda: len(set(inbox.ids) & {str(number) for number in range(100, 400)}) == 300)
                assert [id_ for id_ in inbox.ids if int(id_) >= 100] == [str(number) for number in range(100, 400)]
                second = publisher._channel
                await asyncio.sleep(publish._REFUSING)
                assert await made.publish([message(TOPIC, 1)]) == [None]
                assert publisher._channel is second, "nothing was refused on it"
            finally:
                await channel.queue_delete(full)
                await connection.close()

    run(main())


# --- delay queues of others ---


class Watched:
    """A process that watches, and what it asks the broker for."""

    def __init__(self, watcher: RabbitAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
        self._watcher = watcher
        self.now = time.monotonic()
        assert watcher._running is not None
        running = watcher._running
        monkeypatch.setattr(running.waiting, "_clock", lambda: self.now)
        self.absent = 0
        """How often it asked for a queue that is not there: so many errors has the broker logged."""
        ready = running.topology.ready

        async def asked(queue: str) -> int | None:
            found = await ready(queue)
            self.absent += found is None
            return found

        monkeypatch.setattr(running.topology, "ready", asked)

    async def delayed(self) -> int | None:
        return (await self._watcher.measure(GROUP)).delayed


def test_a_watcher_notices_delay_queues_that_others_make_later(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with world(url) as mine:
            maker, watched = await mine.provisioned(), Watched(await mine.adapter(), monkeypatch)
            assert await watched.delayed() == 0
            assert watched.absent == len(waiting.RUNGS)
            assert await maker.publish([message(GROUP.retry, n, due=soon(hours=1)) for n in range(3)]) == [None] * 3
            watched.now += waiting._FIRST
            assert await watched.delayed() == 3
            before = watched.absent
            for _ in range(60):  # a minute of one look a second
                watched.now += 1
                assert await watched.delayed() == 3
            assert watched.absent == before, "the broker logs an error for each queue that is not there"
            for _ in range(24 * 4):
                watched.now += waiting._LAST
                await watched.delayed()
            assert watched.absent < before + 24 * 4 * len(waiting.RUNGS), "that is a quarter of an hour each"

    run(main())


def test_the_management_api_tells_a_watcher_of_new_delay_queues(
    managed: tuple[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url, management = managed

    async def main() -> None:
        async with world(url, RabbitSettings(management=SecretStr(management))) as mine:
            maker, watched = await mine.provisioned(), Watched(await mine.adapter(), monkeypatch)
            assert await watched.delayed() == 0
            assert await maker.publish([message(GROUP.retry, 1, due=soon(hours=1))]) == [None]
            watched.now += waiting._LISTED
            assert await watched.delayed() == 1
            await _delete(url, f"{mine.namespace}.shipping.retry:60m")
            watched.now += waiting._LISTED
            assert await watched.delayed() == 0
            assert watched.absent == 0, "each is an error in the broker's log"

    run(main())


async def _delete(url: str, queue: str) -> None:
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel()
        assert (await channel.queue_declare(queue, passive=True)).message_count == 1
        await channel.queue_delete(queue)
    except ChannelNotFoundEntity as error:
        raise AssertionError(f"{queue} was never there") from error
    finally:
        await connection.close()
