"""What is peculiar to RabbitMQ, at the level of the port."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import aiormq
import pytest
from aiormq.exceptions import AMQPConnectionError, ChannelNotFoundEntity, ProbableAuthenticationError
from pamqp.commands import Basic
from pydantic import SecretStr
from yarl import URL

from eventkit import Bus, Event, Service
from eventkit import headers as h
from eventkit.adapter import (
    DONE,
    RELEASE,
    Address,
    Connection,
    Consumer,
    Delivery,
    Group,
    Message,
    Move,
    Provision,
    Settlement,
)
from eventkit.errors import (
    CapabilityNotSupported,
    InvalidMessage,
    LostMessage,
    MessageTooLarge,
    NoOwner,
    NotProvisioned,
)
from eventkit.testing.brokers import Broker, BrokerUnavailable, provide
from eventkit.testing.brokers.process import free_port
from eventkit_rabbit import (
    RabbitAdapter,
    RabbitSettings,
    consume,
    decode,
    delay,
    encode,
    link,
    properties,
    topology,
    wire,
    write,
)
from eventkit_rabbit.tags import Tags
from eventkit_rabbit.target import target
from eventkit_rabbit.wire import Wire
from tests.proxy import Proxy

TOPIC, INBOX = Address("topic", "orders"), Address("inbox", "shipping")
GROUP = Group("shipping", (TOPIC, INBOX))


class Inbox:
    """A core that settles as it is told."""

    def __init__(self, how: Callable[[Delivery], Settlement | None] = lambda _: DONE) -> None:
        self.how = how
        self.got: list[Delivery] = []
        self.failed: list[tuple[Delivery, Exception]] = []
        self.open: set[int] = set()
        self.most = 0
        self.consumer: Consumer

    async def deliveries(self, batch: Any) -> None:
        for delivery in batch:
            self.got.append(delivery)
            self.open.add(id(delivery))
            self.most = max(self.most, len(self.open))
        for delivery in batch:
            how = self.how(delivery)
            if how is not None:
                self.settle(delivery, how)

    def settle(self, delivery: Delivery, how: Settlement = DONE) -> None:
        self.open.discard(id(delivery))
        self.consumer.settle(delivery, how)

    async def revoked(self, belongs: object, needed: object) -> None: ...

    def unsettled(self, delivery: Delivery, how: Settlement, error: Exception) -> None:
        self.failed.append((delivery, error))

    @property
    def ids(self) -> list[str]:
        return [delivery.message.headers.get(h.ID, "") for delivery in self.got]


class World:
    """Adapters on one namespace, and the means to clean up."""

    def __init__(self, url: str, settings: RabbitSettings | None = None) -> None:
        self.url = url
        self.namespace = f"t{uuid.uuid4().hex[:10]}"
        self.settings = settings
        self.adapters: list[RabbitAdapter] = []
        self.groups: set[str] = set()

    async def adapter(self) -> RabbitAdapter:
        adapter = RabbitAdapter(Connection(SecretStr(self.url), self.namespace, "test", self.settings))
        await adapter.start(10)
        self.adapters.append(adapter)
        return adapter

    async def provisioned(self, *groups: Group) -> RabbitAdapter:
        adapter = await self.adapter()
        self.groups |= {group.name for group in groups}
        await adapter.provision(groups or (GROUP,), Provision.CREATE)
        return adapter

    async def consume(self, adapter: RabbitAdapter, inbox: Inbox, group: Group = GROUP, in_flight: int = 200) -> Inbox:
        inbox.consumer = await adapter.consume(group, inbox, in_flight=in_flight)
        return inbox

    async def _delete(self, connection: Any, queue: str) -> None:
        """Also right after a start of the broker, when a queue may have no leader yet."""
        ends = time.monotonic() + 15.0
        while True:
            channel = await connection.channel()
            try:
                await channel.queue_delete(queue)
            except aiormq.exceptions.ChannelNotFoundEntity:
                if time.monotonic() > ends:
                    raise
                await asyncio.sleep(0.2)
            else:
                await channel.close()
                return

    async def clean(self) -> None:
        connection = await aiormq.connect(self.url)
        try:
            for group in self.groups | {GROUP.name}:
                name = f"{self.namespace}.{group}"
                for queue in (name, f"{name}.dead", *(f"{name}.retry:{label}" for label in delay.RUNGS)):
                    await self._delete(connection, queue)
            for exchange in ("orders", "shipping.inbox", "other"):
                channel = await connection.channel()
                await channel.exchange_delete(f"{self.namespace}.{exchange}")
                await channel.close()
        finally:
            await connection.close()


@asynccontextmanager
async def world(url: str, settings: RabbitSettings | None = None) -> AsyncIterator[World]:
    made = World(url, settings)
    try:
        yield made
    finally:
        for adapter in made.adapters:
            await adapter.stop(5)
        await made.clean()


def message(address: Address, id: object = 0, *, body: bytes | None = b"{}", **more: Any) -> Message:
    due = more.pop("due", None)
    headers = {h.ID: str(id), h.TYPE: "OrderPlaced", h.MESSAGE_ID: f"m-{id}", h.CONTENT_TYPE: "application/json"}
    return Message(address, "OrderPlaced", None, {**headers, **more.pop("headers", {})}, body, due)


def soon(**delay: float) -> datetime:
    return datetime.now(UTC) + timedelta(**delay)


async def until(what: Callable[[], object], seconds: float = 8) -> None:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise AssertionError("did not come about")
        await asyncio.sleep(0.005)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 50))


@pytest.fixture
def url(broker: Callable[[str], Broker]) -> str:
    return broker("rabbit").url


@pytest.fixture(scope="module")
def own() -> Any:
    """A broker that may be killed."""
    try:
        server = provide("rabbit", settings={"channel_max": "2047", "max_message_size": "100000"})
    except BrokerUnavailable as error:
        pytest.skip(str(error))
    with server:
        yield server


# --- pure ---


@pytest.fixture(scope="module")
def managed() -> Iterator[tuple[str, str]]:
    """The URLs of a broker and of its management API."""
    port = free_port()
    with provide("rabbit", settings={"management.tcp.port": str(port), "management.tcp.ip": "127.0.0.1"}) as own:
        yield own.url, f"http://127.0.0.1:{port}"


def test_groups_are_listed_by_the_management_api(managed: tuple[str, str]) -> None:
    url, management = managed

    def adapter(said: str | None, namespace: str = "shop") -> RabbitAdapter:
        settings = RabbitSettings(management=None if said is None else SecretStr(said))
        return RabbitAdapter(Connection(SecretStr(url), namespace, "test", settings))

    async def main() -> None:
        without, having, other = adapter(None), adapter(management), adapter(management, "shopping")
        wrong = adapter(management.replace("://", "://guest:nobodys-guess@"))
        for one in (without, having, other, wrong):
            await one.start(10)
        try:
            audit = Group("shipping.audit", (TOPIC, Address("topic", "old", "legacy.orders")))
            await having.provision([GROUP, audit], Provision.CREATE)
            assert not without.capabilities.lists_groups
            with pytest.raises(CapabilityNotSupported, match="EVENTKIT_RABBIT__MANAGEMENT"):
                await without.groups()
            assert having.capabilities.lists_groups
            shipping, audited = await having.groups()
            assert (shipping.name, set(shipping.sources)) == ("shipping", set(GROUP.sources))
            assert audited.name == "shipping.audit"
            assert set(audited.sources) == {TOPIC, Address("topic", "legacy.orders", "legacy.orders")}
            assert [group.name for group in await having.groups(["nobody", "shipping"])] == ["shipping"]
            assert await other.groups() == []
            with pytest.raises(ConnectionError, match="401") as caught:
                await wrong.groups()
            assert "nobodys-guess" not in str(caught.value)
            await without.disband("shipping")
            assert [group.name for group in await having.groups()] == ["shipping.audit"]
        finally:
            for one in (without, having, other, wrong):
                await one.stop(5)

    asyncio.run(main())


def test_the_management_api_has_a_url() -> None:
    with pytest.raises(ValueError, match="http://localhost:15672"):
        RabbitSettings(management=SecretStr("localhost:15672"))


def test_codec_round_trip() -> None:
    headers = {
        h.TYPE: "Ä",
        h.ID: "1",
        h.CORRELATION_ID: "c",
        h.MESSAGE_ID: "x" * 300,
        h.REPLY_TO: "r",
        h.CONTENT_TYPE: "application/json",
        "żółć": "👋 \x7f",
        "empty": "",
        "CC": "not a list",
        "x-death": "mine",
        "x-mine": "y",
    }
    header = b"\0" * 12 + encode.encode(Message(TOPIC, "Ä", "k", headers, b""))
    decoded = decode.decode(header)
    assert decoded.headers == {**headers, h.PARTITION_KEY: "k"}
    assert decoded.type == "Ä"
    assert decoded.returns == 0
    assert decode.decode(b"\0" * 12 + encode.encode(Message(TOPIC, "", None, {}, None))).tombstone


def test_codec_reads_what_pamqp_writes_and_the_reverse() -> None:
    foreign: Any = {
        "text": "a", "whole": 7, "big": 2**40, "broken": 1.5, "yes": True, "null": None, "list": [1], "table": {"a": 1},
        "raw": bytearray(b"\xff"), "utf8": bytearray(b"ok"), "time": datetime.now(UTC), "x-delivery-count": 3,
        "x-death": [{"queue": "q"}],
    }  # fmt: skip
    decoded = decode.decode(b"\0" * 12 + Basic.Properties(headers=foreign, message_type="T", app_id="a").marshal())
    assert decoded.headers == {
        "text": "a", "whole": "7", "big": str(2**40), "broken": "1.5", "yes": "true", "utf8": "ok"
    }  # fmt: skip
    assert (decoded.type, decoded.returns) == ("T", 3)


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_codec_never_fails(cut: int) -> None:
    whole = b"\0" * 12 + encode.encode(message(TOPIC))
    decode.decode(whole[:cut])
    decode.decode(whole[:14] + bytes(range(cut, 256)))


def test_codec_refuses_what_amqp_cannot_carry() -> None:
    with pytest.raises(InvalidMessage):
        encode.encode(message(TOPIC, headers={"n" * 256: ""}))
    with pytest.raises(InvalidMessage):
        encode.encode(message(TOPIC, headers={"a": "\ud800"}))


def test_delay_ladder() -> None:
    lengths = [length for _, length in delay._LADDER]
    assert all(1.2 < after / before <= 2 for before, after in pairwise(lengths))
    assert delay.rung(1) == "250ms"
    assert delay.rung(1000) == "1s"
    assert delay.rung(1001) == "2s"
    assert delay.rung(10**12) == "24h"
    assert delay.rung(3_600_000 - 5) == "60m"
    assert delay.rung(15 * 3_600_000) == "14h"
    assert delay.milliseconds(datetime.fromtimestamp(10.0004, UTC), 9.0) == 1001
    assert delay.milliseconds(datetime.fromtimestamp(9, UTC), 9.5) == 0


@pytest.mark.parametrize("hours", [0.02, 0.03, 0.17, 1, 1.5, 10.9, 13.99, 15, 20.62, 23.99, 24])
def test_nothing_in_a_delay_queue_waits_much_less_than_what_may_be_in_front_of_it(hours: float) -> None:
    left = round(hours * 3_600_000)
    for _ in range(8):  # so many delay queues at most, one after another
        longest = delay.length(delay.rung(left))
        assert longest - min(left, longest) <= 30_000
        if left <= longest:
            return
        left -= longest
    raise AssertionError(f"{left / 1000} s are left")


def test_tags_acknowledge_in_few_frames() -> None:
    tags = Tags()
    for tag in range(1, 11):
        tags.arrived(tag)
    for tag in (1, 2, 4, 5):
        tags.done(tag)
    assert tags.write(7) == [write.ack(7, 2, True), write.ack(7, 4, False), write.ack(7, 5, False)]
    assert not tags.holds(4)
    assert tags.holds(3)
    tags.done(3)
    assert tags.write(7) == [write.ack(7, 3, True)]
    tags.done(6)
    tags.release(7)
    tags.done(8)
    assert tags.write(7) == [write.nack(7, 7), write.ack(7, 8, True)]
    tags.begin(9)
    assert not tags.holds(9)
    tags.abandon(9)
    assert tags.holds(9)


def test_settings_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_RABBIT__CREDENTIALS__USERNAME", "u")
    monkeypatch.setenv("EVENTKIT_RABBIT__CREDENTIALS__PASSWORD", "p@ss/word")
    monkeypatch.setenv("EVENTKIT_RABBIT__HEARTBEAT", "PT30S")
    adapter = RabbitAdapter(Connection(SecretStr("amqps://a:b@host/v"), "", "me"))
    target = adapter._target
    assert (target.url.user, target.url.password, target.url.port) == ("u", "p@ss/word", 5671)
    assert target.url.query["heartbeat"] == "30"
    assert target.context is not None
    assert "p@ss" not in str(target)


# --- messages ---


@pytest.mark.parametrize("body", [b"{}", b"", None, bytes(range(256)) * 4, b"x" * 400_000], ids=str)
def test_round_trip(url: str, body: bytes | None) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox())
            sent = message(TOPIC, 1, body=body, headers={"żółć": "👋", "empty": "", "CC": "x", h.PARTITION_KEY: "k"})
            assert await adapter.publish([sent._replace(key="k")]) == [None]
            await until(lambda: inbox.got)
            assert inbox.got[0].message == sent._replace(key="k", headers=inbox.got[0].message.headers)
            assert dict(inbox.got[0].message.headers) == dict(sent.headers)
            assert inbox.got[0].deliveries == 1

    run(work())


def test_foreign_messages_never_stop_the_consumer(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox())
            connection = await aiormq.connect(url)
            channel = await connection.channel()
            exchange = f"{w.namespace}.orders"
            for properties in (
                Basic.Properties(),
                Basic.Properties(message_type="Foreign", headers={"n": 1, "null": None, "t": {"a": 1}}),
            ):
                await channel.basic_publish(b"\xff", exchange=exchange, routing_key="any", properties=properties)
            # a type in Latin-1 and a time in nanoseconds: they kill aiormq's own reader, and again after each reconnect
            poison = b"\x00\x60" + (1_700_000_000_000_000_000).to_bytes(8, "big") + b"\x02\xe9\xff"
            plain = await connection.channel(publisher_confirms=False)
            raw = write.publish(plain.number, exchange, "", False)
            raw += b"".join(write.content(plain.number, poison, b"{}", 131_072))
            await channel.write_queue.put(aiormq.abc.ChannelFrame(raw, False))
            await until(lambda: len(inbox.got) == 3)
            await channel.basic_publish(b"last", exchange=exchange)
            await until(lambda: len(inbox.got) == 4)
            assert inbox.got[1].message.type == "Foreign"
            assert inbox.got[1].message.headers["n"] == "1"
            assert inbox.got[2].message.body == b"{}"
            assert inbox.got[3].message.body == b"last"
            assert len({delivery.position for delivery in inbox.got}) == 4
            assert inbox.consumer.error is None
            await connection.close()

    run(work())


def test_sources_are_told_apart(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            physical = Address("topic", "legacy", f"{w.namespace}.other")
            group = Group("shipping", (TOPIC, INBOX, physical))
            adapter = await w.provisioned(group)
            inbox = await w.consume(adapter, Inbox(), group)
            wanted = [TOPIC, INBOX, physical, group.retry]
            await adapter.publish([message(address, i) for i, address in enumerate(wanted)])
            await adapter.publish([message(group.retry, 9, due=soon(milliseconds=50))])
            await until(lambda: len(inbox.got) == 5)
            assert sorted(d.message.address for d in inbox.got) == sorted([*wanted, group.retry])
            assert not any(name.startswith("x-") for d in inbox.got for name in d.message.headers)

    run(work())


def test_answers_are_per_message(url: str) -> None:
    async def work() -> None:
        settings = RabbitSettings(max_message_bytes=1000)
        async with world(url, settings) as w:
            adapter = await w.provisioned()
            nobody = "nobody"
            answers = await adapter.publish([
                message(TOPIC),
                message(Address("topic", "missing")),
                message(Address("inbox", nobody)),
                message(Address("retry", nobody)),
                message(Address("retry", nobody), due=soon(seconds=5)),
                message(Address("dead", nobody)),
                message(TOPIC, body=b"x" * 1001),
                message(TOPIC, headers={"big": "x" * 140_000}),
                message(TOPIC, headers={"n" * 300: ""}),
                message(INBOX),
            ])  # fmt: skip
            kinds = [type(answer) for answer in answers]
            assert kinds == [
                type(None), NotProvisioned, NoOwner, NotProvisioned, NotProvisioned, NotProvisioned,
                MessageTooLarge, MessageTooLarge, InvalidMessage, type(None),
            ]  # fmt: skip

    run(work())


def test_an_inbox_whose_queue_is_gone_has_no_owner(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            connection = await aiormq.connect(url)
            channel = await connection.channel()
            await channel.queue_delete(f"{w.namespace}.shipping")
            await connection.close()
            batch = [message(INBOX, 1), message(TOPIC, 2), message(INBOX, 1), message(GROUP.retry, 3)]
            answers = await adapter.publish(batch)
            assert [type(one) for one in answers] == [NoOwner, type(None), NoOwner, NotProvisioned]

    run(work())


def test_a_topic_that_an_earlier_release_subscribed_to(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            other = Address("topic", "other")
            adapter = await w.provisioned(Group("shipping", (TOPIC, other)))
            inbox = await w.consume(adapter, Inbox())
            assert await adapter.publish([message(other, 1)]) == [None]
            await until(lambda: inbox.got)
            assert inbox.got[0].message.address == other

    run(work())


def test_a_refusal_closes_the_channel_but_harms_no_other(own: Broker, url: str) -> None:
    async def work(url: str) -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            await adapter.provision([Address("topic", "other")], Provision.CREATE)
            inbox = await w.consume(adapter, Inbox())
            connection = await aiormq.connect(url)
            channel = await connection.channel()
            await channel.exchange_delete(f"{w.namespace}.other")
            await connection.close()
            # it was there a moment ago, and the broker takes less than its version's default
            batch = [message(TOPIC, i) for i in range(300)]
            batch[100] = message(Address("topic", "other"))
            batch[200] = message(TOPIC, body=b"x" * 200_000)
            answers = list(await adapter.publish(batch))
            assert isinstance(answers[100], NotProvisioned)
            if w.url == own.url:
                assert isinstance(answers[200], MessageTooLarge)
                assert answers[200].limit == 100_000
            answers[100] = answers[200] = None
            assert answers == [None] * 300
            await until(lambda: {str(i) for i in range(300)} - {"100", "200"} <= set(inbox.ids))
            assert await adapter.publish([message(TOPIC)]) == [None]

    run(work(own.url))
    run(work(url))


def test_a_channel_that_the_broker_closed_is_not_opened_again_at_once(url: str) -> None:
    """The broker ends the connection of one that opens what it takes for open, as aiormq now and then did."""

    async def work() -> None:
        wire = await Wire.open(target(url, RabbitSettings(), "test"), "questions")
        numbers: list[int] = []

        async def ask(queue: str) -> None:
            with suppress(ChannelNotFoundEntity):
                async with wire.scratch() as channel:
                    numbers.append(channel.number)
                    await channel.queue_declare(queue, passive=True)

        try:
            for turn in range(20):
                await asyncio.gather(*(ask(f"not there {turn} {number}") for number in range(3)))
            assert len(set(numbers)) == 60, numbers
            assert not wire.lost.done(), wire.lost.result()
        finally:
            await wire.close(5)

    run(work())


def test_order_of_a_call_and_between_calls(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox(), in_flight=1000)
            calls = [[message(TOPIC, 10_000 * c + i) for i in range(size)] for c, size in enumerate((700, 1, 30, 1200))]
            await asyncio.gather(*(adapter.publish(call) for call in calls))
            await until(lambda: len(inbox.got) == 1931)
            assert inbox.ids == [one.headers[h.ID] for call in calls for one in call]

    run(work())


# --- groups ---


def test_groups_start_now_and_each_get_all(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            audit = Group("audit", (TOPIC,))
            adapter = await w.provisioned(GROUP, audit)
            await adapter.publish([message(TOPIC, i) for i in range(10)])
            first = await w.consume(adapter, Inbox())
            second = await w.consume(adapter, Inbox(), audit)
            other = await w.consume(await w.adapter(), Inbox())
            await until(lambda: len(first.got) + len(other.got) == 10 and len(second.got) == 10)
            for start in range(0, 400, 100):
                await adapter.publish([message(TOPIC, i) for i in range(start, start + 100)])
            await until(lambda: len(first.got) + len(other.got) == 410)
            assert first.got
            assert len(other.got) > 10
            with pytest.raises(CapabilityNotSupported):
                await adapter.provision([Group("early", (TOPIC,), "earliest")], Provision.CREATE)

    run(work())


def test_provisioning(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapters = [await w.adapter() for _ in range(3)]
            first = adapters[0]
            with pytest.raises(NotProvisioned, match=r"topic:orders.*"):
                await first.provision([GROUP, Address("topic", "other")], Provision.VALIDATE)
            with pytest.raises(NotProvisioned, match="inbox:shipping"):
                await first.provision([INBOX], Provision.CREATE)
            await first.provision([GROUP], Provision.ASSUME)
            with pytest.raises(NotProvisioned):
                await first.consume(GROUP, Inbox(), in_flight=1)
            await asyncio.gather(*(adapters[i % 3].provision([GROUP], Provision.CREATE) for i in range(10)))
            for how in Provision:
                await first.provision([GROUP, INBOX, TOPIC], how)

    run(work())


def test_done_stays_done_and_unsettled_comes_back_in_order(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox(lambda d: DONE if int(d.message.headers[h.ID]) % 3 else None))
            await adapter.publish([message(TOPIC, i) for i in range(150)])
            await until(lambda: len(inbox.got) == 150)
            await inbox.consumer.stop(5)
            inbox.settle(inbox.got[0])  # stale: nothing happens
            again = await w.consume(adapter, Inbox())
            await until(lambda: len(again.got) == 50)
            assert again.ids == [str(i) for i in range(0, 150, 3)]
            assert {d.deliveries for d in again.got} == {2}
            assert [d.position for d in again.got] == [d.position for d in inbox.got if d.deliveries and d.position in
                                                      {x.position for x in again.got}]  # fmt: skip
            await again.consumer.stop(5)
            last = await w.consume(adapter, Inbox())
            await adapter.publish([message(TOPIC, "end")])
            await until(lambda: last.got)
            assert last.ids == ["end"]

    run(work())


def test_release_comes_back_and_settling_twice_is_harmless(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox(lambda d: RELEASE if d.deliveries == 1 else DONE))
            await adapter.publish([message(TOPIC, i) for i in range(20)])
            await until(lambda: len(inbox.got) == 40)
            for delivery in inbox.got:
                inbox.settle(delivery, DONE)
                inbox.settle(delivery, RELEASE)
                inbox.settle(delivery, Move(message(GROUP.dead)))
            await adapter.publish([message(TOPIC, "end")])
            await until(lambda: inbox.ids[-2:] == ["end", "end"])
            assert len(inbox.got) == 42
            assert inbox.consumer.error is None
            assert not inbox.failed
            assert (await adapter.measure(GROUP)).dead == 0

    run(work())


@pytest.mark.parametrize("in_flight", [1, 7, 100])
def test_in_flight_is_never_exceeded(url: str, in_flight: int) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = Inbox(lambda _: None)
            await w.consume(adapter, inbox, in_flight=in_flight)
            await adapter.publish([message(TOPIC, i) for i in range(200)])
            done = 0
            while done < 200:
                await until(lambda done=done: len(inbox.got) > done)
                inbox.settle(inbox.got[done])
                done += 1
            assert min(in_flight, 7) <= inbox.most <= in_flight

    run(work())


def test_pause_and_resume(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox(lambda _: None))
            other = await w.consume(await w.adapter(), Inbox())
            await adapter.publish([message(TOPIC, i) for i in range(20)])
            await until(lambda: len(inbox.got) + len(other.got) == 20)
            held = len(inbox.got)
            assert held
            inbox.consumer.pause()
            await until(lambda: not inbox.consumer._subscription.on)
            await adapter.publish([message(TOPIC, i) for i in range(20, 40)])
            await until(lambda: len(other.got) == 40 - held)
            for delivery in inbox.got:
                inbox.settle(delivery)
            await other.consumer.stop(5)
            await adapter.publish([message(TOPIC, i) for i in range(40, 60)])
            await asyncio.sleep(0.1)
            assert len(inbox.got) == held
            inbox.consumer.resume()
            await until(lambda: len(inbox.got) == held + 20)

    run(work())


# --- retry and dead letters ---


def test_retry_is_on_time_and_blocks_nobody(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            arrived: dict[str, float] = {}

            def how(delivery: Delivery) -> Settlement:
                body = delivery.message
                if delivery.message.address == TOPIC and body.headers[h.ID].startswith("late"):
                    return Move(body._replace(address=GROUP.retry, due=soon(hours=1)))
                if delivery.message.address == TOPIC and body.headers[h.ID].startswith("soon"):
                    return Move(body._replace(address=GROUP.retry, due=soon(seconds=0.4)))
                arrived[body.headers[h.ID]] = time.monotonic()
                return DONE

            inbox = await w.consume(adapter, Inbox(how))
            await adapter.publish([message(TOPIC, f"late-{i}") for i in range(2000)])
            start = time.monotonic()
            await adapter.publish([message(TOPIC, f"soon-{i}") for i in range(10)])
            await adapter.publish([message(TOPIC, i) for i in range(100)])
            await until(lambda: len(arrived) == 110)
            assert all(0.4 < arrived[f"soon-{i}"] - start < 3 for i in range(10))
            assert not inbox.failed
            backlog = await adapter.measure(GROUP)
            assert (backlog.ready, backlog.delayed, backlog.dead) == (0, 2000, 0)

    run(work())


@pytest.mark.parametrize("due", [None, timedelta(), timedelta(hours=-1)], ids=str)
def test_zero_delay_is_at_once(url: str, due: timedelta | None) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox())
            when = None if due is None else datetime.now(UTC) + due
            assert await adapter.publish([message(GROUP.retry, due=when)]) == [None]
            await until(lambda: inbox.got, 1)
            assert (await adapter.measure(GROUP)).delayed == 0

    run(work())


def test_a_delay_longer_than_the_ladder_hops(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay, "_LENGTHS", (250,))
    monkeypatch.setattr(delay, "RUNGS", ("250ms",))

    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox())
            start = time.monotonic()
            await adapter.publish([message(GROUP.retry, 1, due=soon(seconds=0.8))])
            await until(lambda: inbox.got)
            assert time.monotonic() - start > 0.78
            assert properties.UNTIL not in inbox.got[0].message.headers

    run(work())


def test_what_waits_longer_holds_up_nothing_that_waits_less(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay, "_LENGTHS", (500, 86_400_000))
    monkeypatch.setattr(delay, "RUNGS", ("500ms", "24h"))

    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox())
            assert await adapter.publish([message(GROUP.retry, "day", due=soon(hours=24))]) == [None]
            start = time.monotonic()
            assert await adapter.publish([message(GROUP.retry, "less", due=soon(seconds=1.2))]) == [None]
            await until(lambda: inbox.got)
            assert inbox.ids == ["less"]
            assert time.monotonic() - start > 1.18
            await until_delayed(adapter, 1)

    run(work())


def test_a_delay_queue_ends_nothing_by_itself(url: str) -> None:
    """RabbitMQ takes this declaration only if what it has is the same: no `x-expires`, no TTL of the queue's own."""
    limits = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000}

    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            assert await adapter.publish([message(GROUP.retry, due=soon(hours=24))]) == [None]
            connection = await aiormq.connect(url)
            channel = await connection.channel()
            arguments = {
                **limits,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": f"{w.namespace}.shipping",
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
            name = f"{w.namespace}.shipping.retry:24h"
            found = await channel.queue_declare(name, durable=True, arguments=arguments)  # type: ignore[arg-type]
            assert found.message_count == 1
            got = await channel.basic_get(name)
            assert 86_390_000 < int(got.header.properties.expiration or "0") <= 86_400_000
            await connection.close()
            await until_delayed(adapter, 1)

    run(work())


async def until_delayed(adapter: RabbitAdapter, count: int) -> None:
    ends = time.monotonic() + 8
    while (found := (await adapter.measure(GROUP)).delayed) != count:
        assert time.monotonic() < ends, found
        await asyncio.sleep(0.05)


def test_a_delay_shrinks_while_its_delay_queue_is_made(url: str) -> None:
    async def main() -> None:
        async with world(url) as mine:
            adapter = await mine.provisioned()
            inbox = await mine.consume(adapter, Inbox())
            due = soon(seconds=0.255)  # just too long for the shortest delay queue; not so once it is made
            failed = [message(GROUP.retry, n, due=due) for n in range(20)]
            answers = await asyncio.gather(*(adapter.publish([one]) for one in failed))
            assert answers == [[None]] * 20
            await until(lambda: len(inbox.got) == 20)
            assert sorted(inbox.ids, key=int) == [str(n) for n in range(20)]

    run(main())


def test_delayed_messages_survive_a_deleted_rung(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox())
            assert await adapter.publish([message(GROUP.retry, 1, due=soon(seconds=0.2))]) == [None]
            await until(lambda: inbox.got)
            connection = await aiormq.connect(url)
            channel = await connection.channel()
            await channel.queue_delete(f"{w.namespace}.shipping.retry:250ms")
            await connection.close()
            answers = await adapter.publish([message(GROUP.retry, 2, due=soon(seconds=0.2))])
            assert isinstance(answers[0], NotProvisioned)
            assert await adapter.publish([message(GROUP.retry, 2, due=soon(seconds=0.2))]) == [None]
            await until(lambda: len(inbox.got) == 2)

    run(work())


def test_a_failed_move_keeps_the_delivery(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox(lambda d: Move(message(Address("dead", "nobody")))))
            await adapter.publish([message(TOPIC, i) for i in range(3)])
            await until(lambda: len(inbox.failed) == 3)
            assert isinstance(inbox.failed[0][1], NotProvisioned)
            await inbox.consumer.stop(5)  # they were not settled: another gets them
            inbox = await w.consume(adapter, Inbox(lambda d: Move(message(Address("dead", "nobody")))))
            await until(lambda: len(inbox.failed) == 3)
            inbox.how = lambda _: DONE
            for delivery, _ in inbox.failed:
                inbox.settle(delivery)
            await inbox.consumer.stop(5)
            assert (await adapter.measure(GROUP)).ready == 0

    run(work())


def test_a_copy_that_is_confirmed_late_keeps_no_other_waiting(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delay queue that was just made is safe only after a while, and what goes there is kept until then."""
    monkeypatch.setattr(topology, "_YOUNG", 20.0)

    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox(lambda delivery: None))
            await adapter.publish([message(TOPIC, "later"), message(TOPIC, "dead")])
            await until(lambda: len(inbox.got) == 2)
            later, dead = inbox.got
            before = inbox.consumer._session  # type: ignore[attr-defined]
            inbox.settle(later, Move(message(GROUP.retry, "copy", due=soon(seconds=60))))
            inbox.settle(dead, Move(message(GROUP.dead, "letter")))
            await until(lambda: 2 in inbox.consumer._session.tags._settled)  # type: ignore[attr-defined]
            connection = adapter._now()._consuming.now()
            assert connection is not None
            async with connection.scratch():
                pass  # the broker has answered something that was asked after the acknowledgement: it has that, too
            connection.abort(ConnectionError("cut"))
            await until(lambda: inbox.consumer._session not in (None, before))  # type: ignore[attr-defined]
            await adapter.publish([message(TOPIC, "last")])
            await until(lambda: "last" in inbox.ids)
            assert inbox.ids == ["later", "dead", "later", "last"], "one that was moved came again"

    run(work())


def test_what_is_settled_while_its_channel_is_closed_ends_no_connection(url: str) -> None:
    """All that is unsettled on the connection's other channels would come again."""

    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox(lambda delivery: None))
            await adapter.publish([message(TOPIC, number) for number in range(20)])
            await until(lambda: len(inbox.got) == 20)
            wire, session = adapter._now()._consuming.now(), inbox.consumer._session  # type: ignore[attr-defined]
            leaving = asyncio.create_task(session.leave())
            for delivery in inbox.got:
                await asyncio.sleep(0.001)
                inbox.settle(delivery)
                session.flush()
            await leaving
            await adapter.measure(GROUP)
            assert adapter._now()._consuming.now() is wire

    run(work())


def test_a_channel_that_could_not_be_closed_in_time_is_closed_later(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in hand on it would be nobody's for as long as the connection lives."""
    monkeypatch.setattr(wire, "_CALL", 0.3)
    monkeypatch.setattr(consume, "_OPEN", 0.3)

    async def work(proxy: Proxy) -> None:
        async with world(url) as w:
            direct = await w.provisioned()
            adapter = RabbitAdapter(
                Connection(SecretStr(str(URL(url).with_host("127.0.0.1").with_port(proxy.port))), w.namespace, "test")
            )
            await adapter.start(10)
            w.adapters.append(adapter)
            inbox = await w.consume(
                adapter, Inbox(lambda delivery: DONE if delivery.deliveries == 2 else None), in_flight=5
            )
            await direct.publish([message(TOPIC, number) for number in range(5)])
            await until(lambda: len(inbox.got) == 5)
            session = inbox.consumer._session  # type: ignore[attr-defined]
            proxy.stall()
            inbox.consumer.hold(10)
            await until(session.over.done)
            await until(lambda: inbox.consumer.error is not None)
            proxy.mend()
            await until(lambda: inbox.ids[5:] == [str(number) for number in range(5)])

    with Proxy() as proxy:
        proxy.to(URL(url).port or 0)
        run(work(proxy))


def test_a_follower_whose_channel_is_closed_ends_no_connection(url: str) -> None:
    """The broker closes one that has left a message in hand for too long."""

    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            wire = adapter._now()._consuming.now()
            assert wire is not None
            async with adapter.follow(TOPIC) as following:
                await adapter.publish([message(TOPIC, number) for number in range(2)])
                assert (await anext(following)).message.headers[h.ID] == "0"
                (channel,) = (one for one in wire.frames.owners.values() if type(one).__name__ == "Following")
                await until(lambda: channel._arrived)  # type: ignore[attr-defined]
                wire.write(write.ack(channel.channel.number, 99, multiple=False))  # type: ignore[attr-defined]
                await until(lambda: channel.over is not None)  # type: ignore[attr-defined]
                await asyncio.sleep(0.1)  # the broker has its answer
                assert (await anext(following)).message.headers[h.ID] == "1"
                await adapter.measure(GROUP)
                assert adapter._now()._consuming.now() is wire

    run(work())


def test_browsing_changes_nothing_and_remove_takes_one(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            other = await w.adapter()
            inbox = await w.consume(adapter, Inbox(lambda d: Move(d.message._replace(address=GROUP.dead))))
            await adapter.publish([message(TOPIC, i) for i in range(60)])
            await until(lambda: len(inbox.got) == 60)
            await inbox.consumer.stop(5)
            assert (await adapter.measure(GROUP)).dead == 60
            found = [delivery async for delivery in adapter.browse(GROUP.dead)]
            order = [d.message.headers[h.ID] for d in found]  # of the copies, which are made several at a time
            assert sorted(order, key=int) == [str(i) for i in range(60)]
            for one in (other, adapter) * 3:
                assert [d.message.headers[h.ID] async for d in one.browse(GROUP.dead)] == order
            assert {d.message.address for d in found} == {GROUP.dead}
            async for delivery in adapter.browse(GROUP.dead):
                if delivery.message.headers[h.ID] in {"7", "50"}:
                    assert await adapter.remove([delivery]) == [None]
            seven, nine = found[order.index("7")], found[order.index("9")]
            assert await other.remove([seven, nine, nine]) == [None] * 3
            left = [d.message.headers[h.ID] async for d in adapter.browse(GROUP.dead)]
            assert left == [id_ for id_ in order if id_ not in {"7", "9", "50"}]
            both = await asyncio.gather(*(_count(one, GROUP.dead) for one in (adapter, other, adapter)))
            assert both == [57, 57, 57]
            async for _ in other.browse(GROUP.dead):
                break
            await until(lambda: True)
            assert await _count(adapter, GROUP.dead) == 57

    run(work())


async def _count(adapter: RabbitAdapter, address: Address) -> int:
    return len([delivery async for delivery in adapter.browse(address)])


# --- requests ---


def test_requests_and_replies(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            service = await w.provisioned()
            client = await w.adapter()
            mine = Address("reply", "client.1")

            async def answer(batch: Any) -> None:
                names = [d.message.headers[h.REPLY_TO] for d in batch]
                replies = [message(Address("reply", name), d.message.headers[h.ID]) for name, d in zip(names, batch)]  # noqa: B905
                assert set(await service.publish(replies)) == {None}
                for delivery in batch:
                    handler.settle(delivery)

            handler = Inbox()
            handler.deliveries = answer  # type: ignore[method-assign]
            await w.consume(service, handler)
            replies = await w.consume(client, Inbox(), Group("client", (mine,)))
            took = []
            for i in range(50):
                start = time.monotonic()
                assert await client.publish([message(INBOX, i, headers={h.REPLY_TO: mine.name})]) == [None]
                await until(lambda i=i: len(replies.got) > i)
                took.append(time.monotonic() - start)
            assert replies.ids == [str(i) for i in range(50)]
            assert {d.message.address for d in replies.got} == {mine}
            assert sorted(took)[25] < 0.05
            delayed = message(GROUP.retry, 99, headers={h.REPLY_TO: mine.name}, due=soon(seconds=0.1))
            assert await client.publish([delayed]) == [None]
            await until(lambda: len(replies.got) == 51)
            gone = handler.got[0].message.headers[h.REPLY_TO] if handler.got else "amq.rabbitmq.reply-to.nobody"
            await replies.consumer.stop(5)
            answers = await service.publish([message(Address("reply", gone)), message(Address("reply", "x.1"))])
            assert answers == [None, None]

    run(work())


# --- faults ---


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    await reader.read()
    writer.close()


def test_an_address_for_replies_that_amqp_cannot_name_harms_no_other(url: str) -> None:
    async def main() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            nowhere = message(Address("reply", "r" * 300))  # whoever asks chooses it
            for number in range(2):
                answers = await adapter.publish([message(TOPIC, 1), nowhere, message(TOPIC, 2)])
                assert answers[0] is answers[2] is None, (number, answers)
                assert isinstance(answers[1], InvalidMessage)
            inbox = await w.consume(adapter, Inbox())
            assert await adapter.publish([message(TOPIC, 3)]) == [None]
            await until(lambda: inbox.got)

    run(main())


def test_start_fails_in_time_and_leaves_nothing_open(url: str, recwarn: pytest.WarningsRecorder) -> None:
    async def work() -> None:
        parts = url.partition("@")[2]
        for bad, error in (
            (f"amqp://guest:wrong@{parts}", ProbableAuthenticationError),
            ("amqp://guest:guest@127.0.0.1:1/", OSError),
            (f"amqp://guest:guest@{parts}nowhere", AMQPConnectionError),
        ):
            adapter = RabbitAdapter(Connection(SecretStr(bad), "", "me"))
            start = time.monotonic()
            with pytest.raises(error):
                await adapter.start(5)
            assert time.monotonic() - start < 2
            await adapter.stop(1)
        server = await asyncio.start_server(_silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        adapter = RabbitAdapter(Connection(SecretStr(f"amqp://127.0.0.1:{port}/"), "", "me"))
        with pytest.raises(TimeoutError):
            await adapter.start(0.3)
        server.close()

    run(work())
    assert not [str(w.message) for w in recwarn if "nclosed" in str(w.message)]


def test_start_stop_start(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            for _ in range(3):
                await adapter.stop(5)
                await adapter.stop(5)
                await adapter.start(5)
                assert await adapter.publish([message(TOPIC)]) == [None]
                await adapter.provision([GROUP], Provision.CREATE)

    run(work())


def test_a_link_is_closed_at_whatever_moment_it_fails_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiormq loses a cancellation that comes while it tells of a handshake that failed."""
    monkeypatch.setattr(link, "_FIRST_PAUSE", 0.0)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.transport.abort()

    async def work() -> None:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        to = target(f"amqp://127.0.0.1:{port}", RabbitSettings(), "test")
        unheard: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        for turns in range(60):
            broken = link.Link(to, "test")
            coming_back = broken._watch = asyncio.create_task(broken._again())  # type: ignore[assignment]
            for _ in range(turns):
                await asyncio.sleep(0)
            async with asyncio.timeout(5.0):
                await broken.close(1.0)
            assert coming_back.done(), f"after {turns} turns of the loop it goes on"
        server.close()
        await asyncio.sleep(0.1)
        gc.collect()
        assert unheard == []

    run(work())


def test_a_deleted_queue_turns_red_and_is_made_again(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox())
            connection = await aiormq.connect(url)
            channel = await connection.channel()
            await channel.queue_delete(f"{w.namespace}.shipping")
            await until(lambda: inbox.consumer.error is not None)
            await until(lambda: inbox.consumer.error is None)
            await connection.close()
            assert await adapter.publish([message(TOPIC, 1), message(INBOX, 2)]) == [None, None]
            await until(lambda: len(inbox.got) == 2)

    with caplog.at_level(logging.INFO, "eventkit.rabbit"):
        run(work())
    assert [r.levelname for r in caplog.records if r.name == "eventkit.rabbit"] == ["WARNING", "INFO"]
    assert not [r for r in caplog.records if r.name.startswith("aiormq") and r.levelno >= logging.WARNING]


def test_what_was_in_hand_when_its_queue_was_deleted_still_becomes_a_retry_or_a_dead_letter(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox(lambda delivery: None))
            assert await adapter.publish([message(TOPIC, number) for number in range(4)]) == [None] * 4
            await until(lambda: len(inbox.got) == 4)
            wire = adapter._now()._consuming.now()
            assert wire is not None
            channels = lambda: sum(not one.is_closed for one in wire.connection.channels.values() if one)  # noqa: E731
            before = channels()
            connection = await aiormq.connect(url)
            channel = await connection.channel()
            await channel.queue_delete(f"{w.namespace}.shipping")
            await connection.close()
            await until(lambda: inbox.consumer.error is not None)
            await until(lambda: inbox.consumer.error is None)
            dead, soon, later, done = inbox.got
            inbox.settle(dead, Move(message(GROUP.dead, "dead")))
            inbox.settle(soon, Move(message(GROUP.retry, "now")))
            inbox.settle(later, Move(message(GROUP.retry, "later", due=datetime.now(UTC) + timedelta(seconds=0.2))))
            inbox.settle(done)
            inbox.settle(dead, Move(message(GROUP.dead, "twice")))
            await until(lambda: set(inbox.ids[4:]) == {"now", "later"})
            assert [d.message.headers[h.ID] async for d in adapter.browse(GROUP.dead)] == ["dead"]
            assert inbox.failed == []

            await until(lambda: channels() == before)  # type: ignore[no-untyped-call]

    run(work())


def test_what_is_given_back_of_a_queue_that_was_deleted_is_not_dropped(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox(lambda delivery: None))
            assert await adapter.publish([message(TOPIC, number) for number in range(2)]) == [None] * 2
            await until(lambda: len(inbox.got) == 2)
            connection = await aiormq.connect(url)
            channel = await connection.channel()
            await channel.queue_delete(f"{w.namespace}.shipping")
            await connection.close()
            await until(lambda: inbox.consumer.error is not None)
            back, done = inbox.got
            inbox.settle(done)
            inbox.settle(done, RELEASE)
            inbox.settle(back, RELEASE)
            assert [(told, type(error)) for told, error in inbox.failed] == [(back, LostMessage)]
            await until(lambda: inbox.consumer.error is None)
            inbox.settle(back, Move(message(GROUP.retry, "again")))
            await inbox.consumer.stop(5)
            other = await w.consume(adapter, Inbox())
            await until(lambda: other.ids == ["again"])

    run(work())


def test_what_was_in_hand_when_its_queue_was_deleted_during_a_pause_is_still_moved(url: str) -> None:
    """Nobody is told then that the queue is gone: the broker says so when it is to be consumed again."""

    class Told(Inbox):
        dropped = 0

        async def revoked(self, belongs: object, needed: object) -> None:
            self.dropped += 1

    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = Told(lambda delivery: None)
            await w.consume(adapter, inbox)
            await adapter.publish([message(TOPIC, number) for number in range(2)])
            await until(lambda: len(inbox.got) == 2)
            inbox.consumer.pause()
            await until(lambda: not inbox.consumer._subscription.on)  # type: ignore[attr-defined]
            connection = await aiormq.connect(url)
            channel = await connection.channel()
            await channel.queue_delete(f"{w.namespace}.shipping")
            await connection.close()
            inbox.consumer.resume()
            await until(lambda: inbox.consumer.error is not None)
            await until(lambda: inbox.consumer.error is None)
            inbox.settle(inbox.got[0], Move(message(GROUP.dead, "dead")))
            inbox.settle(inbox.got[1], Move(message(GROUP.retry, "now")))
            await until(lambda: inbox.ids[2:] == ["now"])
            assert [d.message.headers[h.ID] async for d in adapter.browse(GROUP.dead)] == ["dead"]
            assert inbox.dropped == 0, "what nobody brings again"

    run(work())


def test_a_cut_connection_comes_back(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox(lambda d: DONE if d.deliveries == 2 else None))
            await adapter.publish([message(TOPIC, i) for i in range(50)])
            await until(lambda: len(inbox.got) == 50)
            for link in (adapter._now()._consuming, adapter._now()._publishing):
                link.now()._writer.transport.abort()
            answers = await asyncio.gather(*(adapter.publish([message(TOPIC, 100 + i)]) for i in range(20)))
            assert [None] in answers
            for delivery in inbox.got[:50]:
                inbox.settle(delivery)  # of the connection that is gone
            await until(lambda: len([d for d in inbox.got if d.deliveries == 2]) == 50)
            assert inbox.ids[50:100] == [str(i) for i in range(50)]
            await until(lambda: inbox.consumer.error is None)

    with caplog.at_level(logging.INFO):
        run(work())
    ours = [r.levelname for r in caplog.records if r.name == "eventkit.rabbit"]
    assert sorted(ours) == ["INFO", "INFO", "WARNING", "WARNING"]
    assert not [r for r in caplog.records if r.name.startswith("aiormq") and r.levelno >= logging.WARNING]


class Order(Event, topic="orders", key="key"):
    number: int
    key: str


def test_what_had_not_begun_when_the_connection_was_lost_runs_once(url: str) -> None:
    async def work() -> None:
        ran: Counter[int] = Counter()
        go_on = asyncio.Event()
        service = Service("shipping", concurrency=4)

        @service.handler
        async def handle(event: Order) -> None:
            ran[event.number] += 1
            await go_on.wait()

        async with world(url) as w:
            adapter = RabbitAdapter(Connection(SecretStr(url), w.namespace, "test"))
            async with Bus(adapter, source="test") as bus, bus.run(service):
                # two workers have nothing to do, so that more is held than runs
                await bus.publish_many([Order(number=n, key=f"k{n % 2}") for n in range(40)])
                (consumer,) = adapter._now()._consumers
                before = consumer._session
                assert before is not None
                await until(lambda: before.tags.unsettled > 20)
                assert set(ran) == {0, 1}
                link = adapter._now()._consuming.now()
                assert link is not None
                link._writer.transport.abort()
                await until(lambda: consumer._session is not None and consumer._session is not before)
                go_on.set()
                await until(lambda: len(ran) == 40)
        assert {number for number, count in ran.items() if count > 1} <= {0, 1}, ran

    run(work())


def test_takeover_of_a_consumer_that_died(url: str) -> None:
    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            dying = await w.adapter()
            stuck = await w.consume(dying, Inbox(lambda _: None), in_flight=30)
            await adapter.publish([message(TOPIC, i) for i in range(30)])
            await until(lambda: len(stuck.got) == 30)
            healthy = await w.consume(adapter, Inbox())
            dying._now()._consuming.now()._writer.transport.abort()
            dying._now()._consuming._watch.cancel()
            await until(lambda: len(healthy.got) == 30)

    run(work())


def test_a_killed_and_a_restarted_broker(own: Broker, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with world(own.url, RabbitSettings(publish_timeout=timedelta(seconds=2))) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox())
            delayed = [message(GROUP.retry, f"delayed-{i}", due=soon(seconds=4)) for i in range(50)]
            assert set(await adapter.publish(delayed)) == {None}
            confirmed: list[str] = []
            stop = asyncio.Event()

            async def publishing() -> None:
                n = 0
                while not stop.is_set():
                    ids = [str(n + i) for i in range(20)]
                    n += 20
                    answers = await adapter.publish([message(TOPIC, one) for one in ids])
                    confirmed.extend(one for one, answer in zip(ids, answers, strict=True) if answer is None)
                    await asyncio.sleep(0.01)

            task = asyncio.create_task(publishing())
            await until(lambda: len(confirmed) > 100)
            await asyncio.to_thread(own.kill)
            await until(lambda: inbox.consumer.error is not None)
            await asyncio.to_thread(own.start)
            before = len(confirmed)
            await until(lambda: len(confirmed) > before + 100, 20)
            stop.set()
            await task
            await until(lambda: {*confirmed, *(m.headers[h.ID] for m in delayed)} <= set(inbox.ids), 10)
            assert inbox.consumer.error is None
            restart = asyncio.create_task(asyncio.to_thread(own.restart))
            await until(lambda: inbox.consumer.error is not None)
            start = time.monotonic()
            answers = await adapter.publish([message(TOPIC)])
            assert answers[0] is not None
            assert time.monotonic() - start < 3
            await adapter.stop(2)
            assert time.monotonic() - start < 6
            await restart

    with caplog.at_level(logging.INFO):
        run(work())
    assert not [r for r in caplog.records if r.name.startswith("aiormq") and r.levelno >= logging.WARNING]
