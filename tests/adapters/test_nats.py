"""What is peculiar to NATS JetStream."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.errors import NotFoundError
from pydantic import SecretStr

from eventkit import Bus, Event, Service
from eventkit import headers as h
from eventkit.adapter import DONE, RELEASE, Address, Connection, Group, Move, Provision
from eventkit.contract.checks import eventually, stays
from eventkit.contract.receiving import contents, put, raw, receive
from eventkit.copies import foreign_id
from eventkit.errors import InvalidMessage, LostMessage, MessageTooLarge, NoOwner, NotProvisioned, SettingsError
from eventkit.security import Tls
from eventkit.testing.brokers import Broker, provide
from eventkit_nats import Authentication, NatsAdapter, NatsSettings
from eventkit_nats.client import Client
from eventkit_nats.link import Link

Give = Callable[[str], Broker]
_count = itertools.count(1)

TOPIC = Address("topic", "orders")
GROUP = Group("worker", (TOPIC,))


@pytest.fixture(scope="module")
def own() -> Iterator[Broker]:
    """A server that tests may kill."""
    with provide("nats", settings={"max_payload": "200000"}) as broker:
        yield broker


def make(url: str, namespace: str, **settings: Any) -> NatsAdapter:
    return NatsAdapter(Connection(SecretStr(url), namespace, "test", NatsSettings(**settings)))


@asynccontextmanager
async def started(url: str, namespace: str | None = None, **settings: Any) -> AsyncIterator[NatsAdapter]:
    """A started adapter; with no namespace given it has its own, which is removed at the end."""
    name = namespace or f"t{os.getpid():x}-{int(time.time()):x}-{next(_count)}"
    adapter = make(url, name, **settings)
    await adapter.start(10.0)
    try:
        yield adapter
    finally:
        await adapter.stop(5.0)
        if namespace is None:
            client = await nats.connect(url)
            js = client.jetstream()
            # a set: those of others that come meanwhile move the pages
            for stream in {stream async for stream in streams(js) if stream.startswith(name)}:
                await js.delete_stream(stream)
            await client.close()


async def streams(js: Any) -> AsyncIterator[str]:
    at = 0
    while page := await js.streams_info(offset=at):
        at += len(page)
        for info in page:
            yield info.config.name


async def create(adapter: NatsAdapter, *wanted: Address | Group) -> None:
    await adapter.provision(wanted or (GROUP,), Provision.CREATE)


def namespace_of(adapter: NatsAdapter) -> str:
    return adapter._naming.namespace


async def api(adapter: NatsAdapter, what: str, request: object = None) -> dict[str, Any]:
    return await adapter._started().exchange.api(what, request)


def barred(link: Link, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """There is no other connection before this is set."""
    gate, connect = asyncio.Event(), link._open

    async def later(timeout: float) -> Client:
        await gate.wait()
        return await connect(timeout)

    monkeypatch.setattr(link, "_open", later)
    return gate


async def cut_off(link: Link) -> None:
    assert link._client is not None
    link._client.abort()
    await eventually(lambda: link.error is not None, "it is down")


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(bounded())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_is_written_to_a_socket_that_is_gone_raises_on_no_loop(broker: Give, loop: str) -> None:
    url = broker("nats").url
    make_loop = pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else None

    async def test() -> None:
        client = Client(secure=False)
        await client.connect(servers=[url], allow_reconnect=False)
        client.abort()
        for _ in range(5):  # turns of the loop, in one of which the socket is closed
            client.write(b"PING\r\n")
            await asyncio.sleep(0)
        await client.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(test())


# What goes over the wire


def test_odd_headers_and_bodies_come_back_as_they_were(broker: Give) -> None:
    async def test() -> None:
        odd = {
            "x-polish": "zażółć gęślą jaźń",
            "x-empty": "",
            "x-spaces": "  both ends  ",
            "x-percent": "100%25 %41",
            "x:colon (и пробел)": 'quotes " and \\',
            "X-Case": "kept",
            "x-emoji": "🦉\u2028\x7f",
        }
        bodies = [b"{}", b"", None, bytes(range(256)), b"\r\n\r\n", b"x" * 100_000]
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            await put(adapter, *(raw(TOPIC, body, "k ü", headers=odd, type="weird type*.>é") for body in bodies))
            got = await receive(adapter, GROUP)
            await got.arrive(len(bodies))
            assert got.bodies == bodies
            for delivery in got.got:
                message = delivery.message
                assert {name: message.headers[name] for name in odd} == odd
                assert (message.key, message.type, message.address) == ("k ü", "weird type*.>é", TOPIC)
                assert not [name for name in message.headers if name.lower().startswith("nats-")]

    run(test())


def test_what_others_publish_is_taken(broker: Give) -> None:
    async def test() -> None:
        url = broker("nats").url
        async with started(url) as adapter:
            await create(adapter)
            subject = f"{namespace_of(adapter)}=orders"
            client = await nats.connect(url)
            js = client.jetstream()
            await js.publish(subject, b"bare")
            await js.publish(
                f"{subject}.any.where", b"{}", headers={"Content-Type": "text/x", "Nats-Expected-Stream": subject}
            )
            # no valid UTF-8, a line without colon, odd spacing: written to the socket by hand
            block = b"NATS/1.0\r\nx-bad: \xff\xfe\r\nnonsense\r\nx-good:tight\r\n\r\n"
            client._transport.write(b"HPUB %b %d %d\r\n%b\r\n" % (subject.encode(), len(block), len(block), block))
            await client.flush()
            got = await receive(adapter, GROUP)
            await got.arrive(3)
            first, second, third = (delivery.message for delivery in got.got)
            assert (first.type, first.key, dict(first.headers), first.body) == ("", None, {}, b"bare")
            assert dict(second.headers) == {h.CONTENT_TYPE: "text/x"}
            assert dict(third.headers) == {"x-good": "tight"}
            # a copy of such a message may be published
            copy = second._replace(address=GROUP.retry, headers={**second.headers, "Nats-Expected-Stream": "other"})
            assert list(await adapter.publish([copy])) == [None]
            await client.close()

    run(test())


def test_a_plain_faststream_subscriber_reads_ours_and_we_read_its(broker: Give) -> None:
    from faststream.nats import JStream, NatsBroker, NatsMessage

    async def test() -> None:
        url = broker("nats").url
        async with started(url) as adapter:
            await create(adapter)
            subject = f"{namespace_of(adapter)}=orders"
            seen: list[tuple[Any, str | None, Any]] = []
            plain = NatsBroker(url, logger=None)

            @plain.subscriber(
                f"{subject}.>",
                stream=JStream(subject, declare=False),
                durable="plain",
                pull_sub=True,
                deliver_policy="all",
            )
            async def handle(body: dict[str, Any], message: NatsMessage) -> None:
                seen.append((body, message.correlation_id, message.headers["ce-type"]))

            await plain.start()
            message = raw(TOPIC, b'{"a": 1}', headers={h.CORRELATION_ID: "chain", h.CONTENT_TYPE: "application/json"})
            await put(adapter, message)
            await eventually(lambda: seen, "FastStream's handler ran")
            assert seen == [({"a": 1}, "chain", "Raw")]
            got = await receive(adapter, GROUP)
            await plain.publish({"b": 2}, subject, headers={"x": "y"}, correlation_id="theirs", stream=subject)
            await got.arrive(2)
            theirs = got.got[1].message
            assert json.loads(theirs.body or b"") == {"b": 2}
            assert (theirs.headers["x"], theirs.headers[h.CORRELATION_ID]) == ("y", "theirs")
            assert theirs.headers[h.CONTENT_TYPE] == "application/json"
            await plain.stop()

    run(test())


def test_the_same_copy_published_twice_is_kept_once(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            message = raw(TOPIC, b"once")
            await put(adapter, message)
            await put(adapter, message, raw(TOPIC, b"other"))
            assert [delivery.message.body for delivery in await contents(adapter, TOPIC)] == [b"once", b"other"]

    run(test())


# Publishing


def test_each_message_has_its_answer(own: Broker) -> None:
    async def test() -> None:
        async with started(own.url) as adapter:
            await create(adapter)
            assert adapter._started().link.max_payload == 200_000
            answers = await adapter.publish(
                [
                    raw(TOPIC, b"good"),
                    raw(TOPIC, b"x" * 200_000),
                    raw(Address("topic", "nowhere"), b""),
                    raw(Address("inbox", "nobody"), b""),
                    raw(Address("dead", "nobody"), b""),
                    raw(Address("reply", "$JS.API.STREAM.DELETE.x=reply"), b""),
                    raw(Address("topic", "odd", "not a subject"), b""),
                    raw(TOPIC, b"y" * 149_500),
                ]
            )
            kinds = [type(answer).__name__ for answer in answers]
            assert kinds == [
                "NoneType", "MessageTooLarge", "NotProvisioned", "NoOwner", "NotProvisioned", "NoneType",
                "InvalidMessage", "NoneType",
            ]  # fmt: skip
            too_large = answers[1]
            assert isinstance(too_large, MessageTooLarge)
            assert too_large.limit == 150_000
            assert len(await contents(adapter, TOPIC)) == 2

    run(test())


def test_large_calls_are_not_refused_and_keep_their_order(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            messages = [raw(TOPIC, b"%d" % number) for number in range(12_000)]
            results = await asyncio.gather(
                adapter.publish(messages[:9_000]), *(adapter.publish([message]) for message in messages[9_000:])
            )
            assert not [answer for result in results for answer in result if answer is not None]
            got = await receive(adapter, GROUP, in_flight=2_000)
            seen = 0
            while seen < len(messages):
                await eventually(lambda: got.open, "more")
                seen += len(got.open)
                batch, got.open = got.open, []
                for delivery in batch:
                    got.consumer.settle(delivery, DONE)
            assert got.bodies == [message.body for message in messages]

    run(test())


def test_a_full_inbox_refuses(broker: Give) -> None:
    async def test() -> None:
        inbox = Address("inbox", "small")
        async with started(broker("nats").url, inbox_bytes=2_000) as adapter:
            await create(adapter, Group("small", (inbox,)))
            answers = await adapter.publish([raw(inbox, b"x" * 300) for _ in range(10)])
            assert answers[0] is None
            assert getattr(answers[-1], "err_code", None) == 10077

    run(test())


def test_a_sender_waits_for_an_owner(broker: Give) -> None:
    async def test() -> None:
        inbox = Address("inbox", "shipping")
        async with started(broker("nats").url) as adapter:
            with pytest.raises(NotProvisioned, match="shipping"):
                await create(adapter, inbox)
            (answer,) = await adapter.publish([raw(inbox, b"")])
            assert isinstance(answer, NoOwner)
            await create(adapter, Group("shipping", (inbox,)))
            await create(adapter, inbox)
            await put(adapter, raw(inbox, b"ship"))

    run(test())


# Consuming


@pytest.mark.parametrize("in_flight", [1, 3, 7, 50])
def test_in_flight_is_never_exceeded_by_many_sources(broker: Give, in_flight: int) -> None:
    async def test() -> None:
        topics = tuple(Address("topic", f"t{number}") for number in range(5))
        group = Group("many", topics, "earliest")
        total = in_flight * 6
        async with started(broker("nats").url) as adapter:
            await create(adapter, group)
            await put(adapter, *(raw(topics[number % 5], b"%d" % number) for number in range(total)))
            got = await receive(adapter, group, in_flight=in_flight)
            for _ in range(total):
                await eventually(lambda: got.open, "more")
                got.settle(got.open[0])
            assert got.most <= in_flight + 5, "one more of each further source"
            assert len({(delivery.message.address, delivery.position) for delivery in got.got}) == total
            await stays(lambda: len(got.got) == total, "nothing came twice", 0.2)

    run(test())


def test_a_quiet_source_is_read_while_another_is_flooded(broker: Give) -> None:
    async def test() -> None:
        loud, quiet = Address("topic", "loud"), Address("topic", "quiet")
        group = Group("fair", (loud, quiet), "earliest")
        async with started(broker("nats").url) as adapter:
            await create(adapter, group)
            await put(adapter, *(raw(loud, b"loud") for _ in range(3_000)))
            got = await receive(adapter, group, in_flight=100)
            await got.arrive(50)
            await put(adapter, raw(quiet, b"quiet"))
            while b"quiet" not in got.bodies:
                await eventually(lambda: got.open, "more")
                got.settle_all(got.open[:10])
            assert len(got.got) < 1_500

    run(test())


def test_2000_far_retries_hold_up_nobody_and_are_counted(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            later = datetime.now(UTC) + timedelta(hours=1)
            got = await receive(adapter, GROUP, in_flight=50)
            await put(adapter, *(raw(GROUP.retry, b"later", due=later) for _ in range(2_000)))
            began = time.monotonic()
            await put(adapter, *(raw(TOPIC, b"now") for _ in range(100)))
            while len(got.got) < 100:
                await eventually(lambda: got.open, "healthy ones")
                got.settle_all(got.open)
            assert time.monotonic() - began < 3
            assert set(got.bodies) == {b"now"}
            await eventually(lambda: not got.open, "settled")
            backlog = await adapter.measure(GROUP)
            assert (backlog.ready, backlog.delayed, backlog.dead) == (0, 2_000, 0)

    run(test())


def test_a_retry_comes_when_it_is_due_and_counts_as_one_arrival(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            got = await receive(adapter, GROUP, in_flight=10)
            await put(adapter, raw(TOPIC, b"try"))
            await got.arrive(1)
            due = datetime.now(UTC) + timedelta(seconds=0.5)
            got.settle(got.got[0], Move(raw(GROUP.retry, b"again", due=due)))
            await got.arrive(2)
            again = got.got[1]
            assert datetime.now(UTC) >= due
            assert (again.message.body, again.message.address, again.deliveries) == (b"again", GROUP.retry, 1)
            backlog = await adapter.measure(GROUP)
            assert (backlog.ready, backlog.in_flight, backlog.delayed) == (0, 1, 0)
            got.settle(again, Move(raw(GROUP.dead, b"buried")))
            await eventually_async(lambda: adapter.measure(GROUP), lambda backlog: backlog.dead == 1, "the dead letter")
            letters = await contents(adapter, GROUP.dead)
            assert [letter.message.body for letter in letters] == [b"buried"]
            assert list(await adapter.remove([*letters, *letters])) == [None, None]
            assert await contents(adapter, GROUP.dead) == []
            backlog = await adapter.measure(GROUP)
            assert (backlog.ready, backlog.in_flight, backlog.delayed, backlog.dead) == (0, 0, 0, 0)

    run(test())


async def eventually_async(ask: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool], what: str) -> None:
    ends = time.monotonic() + 5
    while not holds(answer := await ask()):
        assert time.monotonic() < ends, f"{what}: {answer}"
        await asyncio.sleep(0.01)


def test_one_that_is_due_in_eight_thousand_years_is_not_delivered_again_and_again(broker: Give) -> None:
    """A number of nanoseconds that the server cannot read would have it delivered at once."""

    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            got = await receive(adapter, GROUP)
            await put(adapter, raw(GROUP.retry, b"far", due=datetime(9999, 12, 31, tzinfo=UTC)))
            name = f"{namespace_of(adapter)}=worker"

            async def deliveries() -> int:
                return int((await api(adapter, f"CONSUMER.INFO.{name}=retry.{name}"))["delivered"]["consumer_seq"])

            await eventually_async(deliveries, lambda count: count > 0, "it has come, and was put off")
            await stays(lambda: not got.got, "it is not due", 0.5)
            assert await deliveries() == 1

    run(test())


def test_a_topic_may_be_named_error(broker: Give) -> None:
    """The server confirms with the stream's name, and refuses with a field of that name."""
    topic = Address("topic", "error")

    async def test() -> None:
        async with started(broker("nats").url, "") as adapter:
            await create(adapter, topic)
            try:
                await put(adapter, raw(topic, b"fine"))
                assert [one.message.body for one in await contents(adapter, topic)][-1:] == [b"fine"]
            finally:
                with contextlib.suppress(NotFoundError):  # a slow server is asked twice
                    await api(adapter, "STREAM.DELETE.error")

    run(test())


def test_a_failed_copy_keeps_the_original(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            await put(adapter, raw(TOPIC, b"one"))
            got = await receive(adapter, GROUP)
            await got.arrive(1)
            got.settle(got.got[0], Move(raw(Address("dead", "nobody"), b"")))
            await eventually(lambda: got.failed, "told that it failed")
            _, how, error = got.failed[0]
            assert isinstance(error, NotProvisioned)
            assert isinstance(how, Move)
            await got.consumer.stop(1.0)  # it was not settled: another gets it
            got = await receive(adapter, GROUP)
            await got.arrive(1)
            got.settle(got.got[0], Move(raw(GROUP.dead, b"kept")))
            await eventually_async(lambda: contents(adapter, GROUP.dead), lambda found: len(found) == 1, "kept")

    run(test())


def test_a_header_that_is_no_text_is_refused_and_harms_no_other(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            refused, fine = await adapter.publish(
                [raw(TOPIC, b"one", headers={"a": "\udcff"}), raw(TOPIC, b"two", headers={"a": "b"})]
            )
            assert isinstance(refused, InvalidMessage)
            assert fine is None

    run(test())


def test_a_long_handler_keeps_its_lease_and_a_dead_one_loses_it(broker: Give) -> None:
    async def test() -> None:
        url = broker("nats").url
        async with started(url, lease=timedelta(seconds=1)) as adapter:
            await create(adapter)
            got = await receive(adapter, GROUP)
            await put(adapter, raw(TOPIC, b"long"))
            await got.arrive(1)
            async with started(url, namespace_of(adapter), lease=timedelta(seconds=1)) as other:
                takes_over = await receive(other, GROUP)
                await stays(lambda: len(got.got) == 1 and not takes_over.got, "one delivery", 2.5)
                # as if the process had died: its socket is gone, nobody connects again
                link = adapter._started().link
                link._closing = True
                assert link._client is not None
                link._client.abort()
                link._client = None
                link.up.clear()
                await takes_over.arrive(1)
                assert takes_over.got[0].deliveries == 2
                assert takes_over.got[0].position == got.got[0].position
                takes_over.settle_all(takes_over.open)
                got.settle_all(got.open)

    run(test())


def test_what_came_while_the_process_stood_still_for_half_a_lease_is_taken_in_order(broker: Give) -> None:
    """Left to come again it would come behind later messages of its key."""

    async def test() -> None:
        url = broker("nats").url
        async with started(url, lease=timedelta(seconds=10)) as adapter:
            await create(adapter)
            got = await receive(adapter, GROUP)
            ready, now = threading.Event(), threading.Event()

            async def others_publish() -> None:
                async with started(url, namespace_of(adapter)) as other:
                    ready.set()
                    now.wait()
                    await put(other, *(raw(TOPIC, b"%d" % number) for number in range(20)))

            elsewhere = asyncio.to_thread(asyncio.run, others_publish())
            published = asyncio.ensure_future(elsewhere)
            await asyncio.to_thread(ready.wait)
            now.set()
            time.sleep(4.5)
            await published
            await put(adapter, *(raw(TOPIC, b"%d" % number) for number in range(20, 40)))
            await got.arrive(40)
            assert got.bodies == [b"%d" % number for number in range(40)]
            assert {delivery.deliveries for delivery in got.got} == {1}
            got.settle_all(got.open)

    run(test())


class Order(Event, topic="orders", key="key"):
    number: int
    key: str


def test_what_had_not_begun_when_its_lease_ran_out_runs_once(own: Broker) -> None:
    async def test() -> None:
        ran: Counter[int] = Counter()
        go_on = asyncio.Event()
        service = Service("worker", concurrency=4)

        @service.handler
        async def handle(event: Order) -> None:
            ran[event.number] += 1
            await go_on.wait()

        adapter = make(own.url, f"lost-{next(_count)}", lease=timedelta(seconds=1))
        async with Bus(adapter, source="test") as bus, bus.run(service) as running:
            await bus.publish_many([Order(number=n, key=f"k{n % 3}") for n in range(40)])
            # one worker has nothing to do, so that more is held than the three that run
            await eventually(lambda: [group.in_flight for group in running.states()] == [40], "all are held")
            assert len(ran) == 3
            await asyncio.to_thread(own.kill)
            await asyncio.sleep(1.1)  # the lease
            await asyncio.to_thread(own.start)
            link = adapter._started().link
            await asyncio.wait_for(link.up.wait(), 15)
            go_on.set()
            await eventually(lambda: len(ran) == 40, "all run")
            ((group, _),) = service.groups().values()

            async def left() -> int | None:
                waits = await adapter.measure(group)
                return None if waits.ready is None or waits.in_flight is None else waits.ready + waits.in_flight

            await eventually_async(left, lambda count: count == 0, "all are settled")
        assert {number for number, count in ran.items() if count > 1} <= set(range(3)), ran

    run(test())


def test_a_stale_settlement_changes_nothing(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            await put(adapter, raw(TOPIC, b"one"))
            first = await receive(adapter, GROUP)
            await first.arrive(1)
            old = first.got[0]
            await first.consumer.stop(2.0)
            second = await receive(adapter, GROUP)
            await second.arrive(1)
            assert second.got[0].deliveries == 2
            first.consumer.settle(old, Move(raw(GROUP.dead, b"no")))
            second.consumer.settle(old, RELEASE)
            second.settle(second.got[0])
            second.settle(second.got[0], RELEASE)
            await stays(lambda: len(second.got) == 1, "settled once", 0.3)
            assert await contents(adapter, GROUP.dead) == []
            assert (await api(adapter, f"CONSUMER.INFO.{namespace_of(adapter)}=orders.{namespace_of(adapter)}=worker"))[
                "num_ack_pending"
            ] == 0

    run(test())


def test_stopping_gives_back_at_once(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            await put(adapter, *(raw(TOPIC, b"%d" % number) for number in range(300)))
            first = await receive(adapter, GROUP, in_flight=200)
            await first.arrive(100)
            first.settle_all(first.open[:20])
            second = await receive(adapter, GROUP, in_flight=1_000)
            began = time.monotonic()
            await first.consumer.stop(5.0)
            await second.arrive(280)
            assert time.monotonic() - began < 3
            assert len({delivery.position for delivery in second.got}) == 280

    run(test())


def test_pausing_keeps_what_was_delivered(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            got = await receive(adapter, GROUP, in_flight=10)
            await put(adapter, raw(TOPIC, b"before"))
            await got.arrive(1)
            got.consumer.pause()
            await put(adapter, *(raw(TOPIC, b"after") for _ in range(30)))
            await stays(lambda: len(got.got) == 1, "nothing new", 0.3)
            got.settle_all(got.open)
            got.consumer.resume()
            while len(got.got) < 31:
                await eventually(lambda: got.open, "more")
                got.settle_all(got.open)

    run(test())


# Requests


def test_replies_are_quick_and_late_ones_harmless(broker: Give) -> None:
    async def test() -> None:
        url = broker("nats").url
        inbox = Address("inbox", "pricing")
        group = Group("pricing", (inbox,))
        async with started(url) as requester, started(url, namespace_of(requester)) as handler:
            await create(handler, group)
            reply = Address("reply", "shop.0af3-17")
            answers = await receive(requester, Group("shop.0af3-17", (reply,)))
            asked = await receive(handler, group)
            spent: list[float] = []
            for number in range(50):
                began = time.perf_counter()
                await put(requester, raw(inbox, b"%d" % number, headers={h.REPLY_TO: reply.name}))
                await asked.arrive(number + 1)
                command = asked.got[number]
                to = Address("reply", command.message.headers[h.REPLY_TO])
                await put(handler, raw(to, b"answer %d" % number))
                asked.settle(command)
                await answers.arrive(number + 1)
                spent.append(time.perf_counter() - began)
            assert answers.bodies == [b"answer %d" % number for number in range(50)]
            assert answers.got[0].message.address == reply
            assert sorted(spent)[25] < 0.5  # polls of 5 ms included
            await answers.consumer.stop(1.0)
            await put(handler, raw(reply, b"too late"))

    run(test())


def test_a_reply_to_cannot_steer_into_streams_or_the_servers_own_subjects(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            for steered in ("=$JS.API.STREAM.PURGE.x", f"={namespace_of(adapter)}=orders", "=a b=reply", "=>=reply"):
                (answer,) = await adapter.publish([raw(Address("reply", steered), b"")])
                assert answer is not None, steered
            assert list(await adapter.publish([raw(Address("reply", "=_INBOX.a.b"), b"")])) == [None]

    run(test())


# Provisioning


def test_ten_at_once_and_again(broker: Give) -> None:
    async def test() -> None:
        url = broker("nats").url
        group = Group("worker", (TOPIC, Address("topic", "stock.eu"), Address("inbox", "worker")))
        async with started(url) as adapter:
            name = namespace_of(adapter)
            with pytest.raises(NotProvisioned) as missing:
                await adapter.provision([group], Provision.VALIDATE)
            for what in ("=orders", "=stock=eu", "=worker=inbox", "=worker=retry", "=worker=dead"):
                assert f"{name}{what}" in str(missing.value)
            others = [make(url, name) for _ in range(10)]
            await asyncio.gather(*(other.start(5.0) for other in others))
            await asyncio.gather(*(create(other, group) for other in others))
            await adapter.provision([group], Provision.VALIDATE)
            await create(adapter, group)
            await api(adapter, f"CONSUMER.DELETE.{name}=orders.{name}=worker")
            with pytest.raises(NotProvisioned, match="consumer"):
                await adapter.provision([group], Provision.VALIDATE)
            await asyncio.gather(*(other.stop(2.0) for other in others))

    run(test())


def test_a_group_begins_when_it_was_provisioned(own: Broker) -> None:
    async def test() -> None:
        late, early = Group("late", (TOPIC,)), Group("early", (TOPIC,), "earliest")
        async with started(own.url) as adapter:
            await create(adapter, TOPIC)
            await put(adapter, raw(TOPIC, b"before"))
            await create(adapter, late, early)
            await asyncio.to_thread(own.kill)
            await asyncio.to_thread(own.start)
            await put(adapter, raw(TOPIC, b"after"))
            await create(adapter, late, early)
            got = await receive(adapter, late)
            all_of_it = await receive(adapter, early)
            await got.arrive(1)
            await all_of_it.arrive(2)
            await stays(lambda: len(got.got) == 1, "only what came after", 0.2)
            assert got.bodies == [b"after"]
            assert all_of_it.bodies == [b"before", b"after"]

    run(test())


def test_settings_of_the_next_release_take_effect_only_if_they_were_given(broker: Give) -> None:
    async def test() -> None:
        url = broker("nats").url
        async with started(url) as adapter:
            name = namespace_of(adapter)
            await create(adapter)
            stream = f"{name}=orders"
            config = (await api(adapter, f"STREAM.INFO.{stream}"))["config"]
            assert (config["max_age"], config["storage"], config["retention"]) == (30 * 86400 * 10**9, "file", "limits")
            await api(adapter, f"STREAM.UPDATE.{stream}", {**config, "max_age": 3600 * 10**9, "max_msgs": 77})
            await create(adapter)
            async with started(url, name, topic_bytes=10**9, lease=timedelta(seconds=5)) as later:
                await create(later)
                config = (await api(later, f"STREAM.INFO.{stream}"))["config"]
                assert (config["max_age"], config["max_msgs"], config["max_bytes"]) == (3600 * 10**9, 77, 10**9)
                durable = (await api(later, f"CONSUMER.INFO.{stream}.{name}=worker"))["config"]
                assert (durable["ack_wait"], durable["max_ack_pending"]) == (5 * 10**9, -1)

    run(test())


def test_more_replicas_than_servers_are_refused(broker: Give) -> None:
    async def test() -> None:
        url = broker("nats").url
        async with started(url) as adapter, started(url, namespace_of(adapter), replicas=3) as next_release:
            for exists in (False, True):
                if exists:
                    await create(adapter)
                with pytest.raises(SettingsError, match=r"EVENTKIT_NATS__REPLICAS is 3.* to 1 outside of a cluster"):
                    await create(next_release)
            got = await receive(adapter, GROUP)
            await put(adapter, raw(TOPIC, b"{}"))
            await got.arrive(1)

    run(test())


def test_a_physical_topic_is_a_subject_of_any_stream(broker: Give) -> None:
    async def test() -> None:
        url = broker("nats").url
        client = await nats.connect(url)
        js = client.jetstream()
        root = f"legacy{os.getpid():x}"
        await js.add_stream(name=f"{root}-all", subjects=[f"{root}.>"])
        orders = Address("topic", "orders", f"{root}.orders")
        stock = Address("topic", "stock", f"{root}.stock")
        fresh = Address("topic", "fresh", f"fresh{root}.orders")
        group = Group("worker", (orders, stock, fresh))
        try:
            async with started(url) as adapter:
                await create(adapter, group)
                await adapter.provision([group], Provision.VALIDATE)
                await js.publish(f"{root}.orders", b"theirs")
                await js.publish(f"{root}.other", b"not for us")
                await put(adapter, raw(stock, b"ours"), raw(fresh, b"new"))
                got = await receive(adapter, group)
                await got.arrive(3)
                assert {(delivery.message.address, delivery.message.body) for delivery in got.got} == {
                    (orders, b"theirs"), (stock, b"ours"), (fresh, b"new"),
                }  # fmt: skip
                got.settle_all(got.open)
                assert [delivery.message.body for delivery in await contents(adapter, stock)] == [b"ours"]
                assert (await adapter.measure(group)).ready == 0
                other = Address("topic", "none", f"none{root}.x")
                with pytest.raises(NotProvisioned):
                    await adapter.provision([other], Provision.VALIDATE)
        finally:
            for stream in (f"{root}-all", f"fresh{root}=orders"):
                await js.delete_stream(stream)
            await client.close()

    run(test())


def test_another_streams_subjects_are_not_taken(broker: Give) -> None:
    async def test() -> None:
        url = broker("nats").url
        client = await nats.connect(url)
        js = client.jetstream()
        async with started(url) as adapter:
            name = namespace_of(adapter)
            await js.add_stream(name=f"{name}-other", subjects=[f"{name}=orders"])
            with pytest.raises(SettingsError, match="physical"):
                await create(adapter)
        await client.close()

    run(test())


# When the server goes


def test_publishes_and_consumers_live_through_a_crash(own: Broker, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with started(own.url) as adapter:
            await create(adapter)
            due = datetime.now(UTC) + timedelta(seconds=3)
            await put(adapter, raw(GROUP.retry, b"delayed", due=due), raw(TOPIC, b"first"))
            got = await receive(adapter, GROUP, in_flight=200)
            await got.arrive(1)
            await asyncio.sleep(0.2)  # the server has put the delayed one off
            await asyncio.to_thread(own.kill)
            await eventually(lambda: got.consumer.error is not None, "red")
            got.settle(got.got[0])
            publishing = [asyncio.create_task(adapter.publish([raw(TOPIC, b"%d" % number)])) for number in range(100)]
            await asyncio.sleep(0.1)
            await asyncio.to_thread(own.start)
            assert [list(await task) for task in publishing] == [[None]] * 100
            await got.arrive(101)
            assert got.consumer.error is None
            assert got.bodies[1:101] == [b"%d" % number for number in range(100)]
            got.settle_all(got.open)
            await got.arrive(102)
            assert got.bodies[101] == b"delayed"
            assert datetime.now(UTC) >= due

    with caplog.at_level("INFO", "eventkit.nats"):
        run(test())
    texts = [record.getMessage() for record in caplog.records if record.name == "eventkit.nats"]
    assert len([text for text in texts if "connection lost" in text]) == 1
    assert len([text for text in texts if "connected again" in text]) == 1


def test_a_publish_is_answered_and_a_stop_returns_while_the_server_is_away(own: Broker) -> None:
    async def test() -> None:
        adapter = make(own.url, f"away{os.getpid():x}", publish_timeout=timedelta(seconds=0.5))
        await adapter.start(5.0)
        await create(adapter)
        got = await receive(adapter, GROUP)
        await put(adapter, raw(TOPIC, b"held"))
        await got.arrive(1)
        await asyncio.to_thread(own.kill)
        began = time.monotonic()
        (answer,) = await adapter.publish([raw(TOPIC, b"")])
        assert isinstance(answer, TimeoutError)
        got.settle(got.got[0], Move(raw(GROUP.dead, b"")))
        await eventually(lambda: got.failed, "the copy failed")
        assert time.monotonic() - began < 3
        began = time.monotonic()
        await adapter.stop(2.0)
        await adapter.stop(2.0)
        assert time.monotonic() - began < 3
        await asyncio.to_thread(own.start)
        await adapter.start(5.0)
        again = await receive(adapter, GROUP)
        await put(adapter, raw(TOPIC, b"new"))
        await eventually(lambda: b"new" in again.bodies, "it works again")
        await adapter.stop(2.0)

    run(test())


def test_a_deleted_consumer_is_made_again_and_goes_on_where_it_was(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            name = namespace_of(adapter)
            await put(adapter, *(raw(TOPIC, b"%d" % number) for number in range(5)))
            got = await receive(adapter, GROUP)
            await put(adapter, *(raw(TOPIC, b"%d" % number) for number in range(5, 10)))
            await got.arrive(10)
            held, done = got.got[7], [delivery for delivery in got.got if delivery is not got.got[7]]
            got.settle_all(done)
            await api(adapter, f"CONSUMER.DELETE.{name}=orders.{name}=worker")
            await put(adapter, raw(TOPIC, b"while it was gone"))
            await eventually(lambda: b"while it was gone" in got.bodies, "it reads again")
            assert got.consumer.error is None
            assert held.message.body in got.bodies[10:], "what was in hand comes again"
            assert len(set(got.bodies)) == 11

    run(test())


def test_a_deleted_consumer_is_made_again_with_what_the_dead_held(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter, started(broker("nats").url, namespace_of(adapter)) as other:
            await create(adapter)
            name = namespace_of(adapter)
            await put(adapter, raw(TOPIC, b"settled"))
            dies = await receive(other, GROUP)
            await dies.arrive(1)
            dies.settle_all(dies.got)
            await put(adapter, raw(TOPIC, b"held"))
            await dies.arrive(2)
            await dies.consumer.flush(5.0)
            client = other._started().link._client
            assert client is not None
            other._started().link._closing = True  # it comes back no more, and gives nothing back
            client.abort()
            got = await receive(adapter, GROUP, settle_with=DONE)
            await put(adapter, *(raw(TOPIC, b"%d" % number) for number in range(5)))
            await got.arrive(5)
            await api(adapter, f"CONSUMER.DELETE.{name}=orders.{name}=worker")
            await eventually(lambda: b"held" in got.bodies, "what the dead held comes again")
            assert b"settled" not in got.bodies

    run(test())


def test_a_group_whose_consumer_is_deleted_while_nobody_reads_loses_nothing(
    broker: Give, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            name = namespace_of(adapter)
            await create(adapter, TOPIC)
            await put(adapter, raw(TOPIC, b"before it began"))
            await create(adapter)
            await put(adapter, raw(TOPIC, b"while it was down"))
            await api(adapter, f"CONSUMER.DELETE.{name}=orders.{name}=worker")
            async with started(broker("nats").url, name) as restarted:
                await create(restarted)
                assert "had begun to read" in caplog.text
                got = await receive(restarted, GROUP, settle_with=DONE)
                await eventually(lambda: b"while it was down" in got.bodies, "it comes")
            await api(adapter, f"STREAM.DELETE.{name}=orders")
            await create(adapter, TOPIC)
            await put(adapter, raw(TOPIC, b"in the new stream"))
            async with started(broker("nats").url, name) as restarted:
                await create(restarted)
                got = await receive(restarted, GROUP, settle_with=DONE)
                await eventually(lambda: got.bodies == [b"in the new stream"], "it comes")
            await adapter.disband("worker")
            await create(adapter)
            await put(adapter, raw(TOPIC, b"later"))
            got = await receive(adapter, GROUP, settle_with=DONE)
            await got.arrive(1)
            assert got.bodies == [b"later"], "one that was removed begins now, as any new one"

    run(test())


def test_what_was_in_hand_of_a_stream_that_is_gone_finishes_nothing_of_the_new_one(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            name = namespace_of(adapter)
            got = await receive(adapter, GROUP)
            await put(adapter, *(raw(TOPIC, b"old %d" % number) for number in range(4)))
            await got.arrive(4)
            old = list(got.got)
            await api(adapter, f"STREAM.DELETE.{name}=orders")
            await create(adapter)
            new = [b"new %d" % number for number in range(4)]
            await put(adapter, *(raw(TOPIC, body) for body in new))
            await got.arrive(8)
            got.settle_all(old[:2])
            got.settle(old[2], Move(raw(GROUP.dead, b"dead")))
            got.settle(old[3], RELEASE)
            assert [(delivery, type(error)) for delivery, _, error in got.failed] == [(old[3], LostMessage)]
            got.settle(old[3], Move(raw(GROUP.retry, b"a copy")))
            await got.arrive(9)
            await got.consumer.flush(5.0)
            await got.consumer.stop(5.0)  # gives the new ones back
            again = await receive(adapter, GROUP)
            await again.arrive(5)
            assert sorted(filter(None, again.bodies)) == [b"a copy", *new]
            assert [letter.message.body async for letter in adapter.browse(GROUP.dead)] == [b"dead"]

    run(test())


def test_a_stream_that_others_made_again_while_the_link_was_down_is_noticed(
    broker: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as other, started(broker("nats").url, namespace_of(other)) as adapter:
            await create(adapter)
            name = namespace_of(adapter)
            got = await receive(adapter, GROUP)
            await put(adapter, raw(TOPIC, b"old"))
            await got.arrive(1)
            link = adapter._started().link
            gate = barred(link, monkeypatch)
            await cut_off(link)
            await api(other, f"STREAM.DELETE.{name}=orders")
            await create(other)
            await put(other, raw(TOPIC, b"new"))
            gate.set()
            await got.arrive(2)
            (pull, _) = got.consumer._sources.pulls  # type: ignore[attr-defined]
            made = (await api(other, f"STREAM.INFO.{name}=orders"))["created"]
            await eventually(lambda: pull.created == made, "it is noticed")
            got.settle(got.got[0])
            await got.consumer.stop(5.0)
            again = await receive(other, GROUP)
            await again.arrive(1)
            assert again.bodies == [b"new"]

    run(test())


def test_what_is_settled_while_the_link_is_down_finishes_nothing_of_a_stream_that_was_made_again(
    broker: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as other, started(broker("nats").url, namespace_of(other)) as adapter:
            await create(adapter)
            name = namespace_of(adapter)
            got = await receive(adapter, GROUP)
            old = [b"just before", b"meanwhile", b"given back", b"fails"]
            await put(adapter, *(raw(TOPIC, body) for body in old))
            await got.arrive(4)
            link = adapter._started().link
            gate = barred(link, monkeypatch)
            got.settle(got.got[0])
            await got.consumer.flush(5.0)
            await cut_off(link)
            got.settle(got.got[1])
            got.settle(got.got[2], RELEASE)
            await api(other, f"STREAM.DELETE.{name}=orders")
            await create(other)
            taker = await receive(other, GROUP)
            new = [b"new %d" % number for number in range(4)]
            await put(other, *(raw(TOPIC, body) for body in new))
            await taker.arrive(4)
            gate.set()
            (pull, _) = got.consumer._sources.pulls  # type: ignore[attr-defined]
            made = (await api(other, f"STREAM.INFO.{name}=orders"))["created"]
            await eventually(lambda: pull.created == made, "it is noticed")
            got.settle(got.got[3], Move(raw(GROUP.dead, b"dead")))
            await got.consumer.flush(5.0)
            assert [(delivery, type(error)) for delivery, _, error in got.failed] == [(got.got[2], LostMessage)]
            await got.consumer.stop(5.0)
            await taker.consumer.stop(5.0)  # gives the new ones back
            again = await receive(other, GROUP)
            await again.arrive(4)
            assert sorted(filter(None, again.bodies)) == new
            assert [letter.message.body async for letter in other.browse(GROUP.dead)] == [b"dead"]

    run(test())


@pytest.mark.parametrize("refilled", [True, False])
def test_what_a_stream_has_lost_finishes_nothing_that_takes_its_place(
    own: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, refilled: bool
) -> None:
    folder: Path | None = getattr(own._running, "_folder", None)
    if folder is None:
        pytest.skip("its data is out of reach")

    async def test() -> None:
        async with started(own.url) as other, started(own.url, namespace_of(other)) as adapter:
            await create(adapter)
            got = await receive(adapter, GROUP)
            await put(adapter, raw(TOPIC, b"kept"))
            await got.arrive(1)
            await got.consumer.flush(5.0)
            (messages,) = folder.rglob(f"{namespace_of(adapter)}=orders/msgs")
            links = [one._started().link for one in (adapter, other)]
            await asyncio.to_thread(own.kill)
            shutil.copytree(messages, tmp_path / "msgs")
            await asyncio.to_thread(own.start)
            await asyncio.gather(*(link.up.wait() for link in links))
            old = [b"done", b"given back", b"fails"]
            await put(other, *(raw(TOPIC, body) for body in old))
            await got.arrive(4)

            link = links[0]
            gate = barred(link, monkeypatch)
            await asyncio.to_thread(own.kill)
            await eventually(lambda: link.error is not None, "it is down")
            shutil.rmtree(messages)
            shutil.copytree(tmp_path / "msgs", messages)
            await asyncio.to_thread(own.start)
            await links[1].up.wait()
            new = [b"new %d" % number for number in range(4)]
            taker = await receive(other, GROUP)
            if refilled:
                await put(other, *(raw(TOPIC, body) for body in new))
                await taker.arrive(4)
            got.settle(got.got[1])
            got.settle(got.got[2], RELEASE)
            gate.set()
            await eventually(lambda: got.failed, "it is noticed")
            assert [(delivery, type(error)) for delivery, _, error in got.failed] == [(got.got[2], LostMessage)]
            got.settle(got.got[3], Move(raw(GROUP.dead, b"dead")))
            got.settle(got.got[0])
            if not refilled:
                got.consumer.pause()
                consumer: Any = got.consumer
                await eventually(lambda: consumer._leaving is None, "it asks for no more")
                await put(other, *(raw(TOPIC, body) for body in new))
                await taker.arrive(4)
            await got.consumer.flush(5.0)
            await got.consumer.stop(5.0)
            await taker.consumer.stop(5.0)  # gives the new ones back
            again = await receive(other, GROUP)
            await again.arrive(4)
            assert sorted(filter(None, again.bodies)) == new
            assert [letter.message.body async for letter in other.browse(GROUP.dead)] == [b"dead"]

    run(test())


@pytest.mark.parametrize("gone", [True, False])
def test_what_was_not_renewed_in_time_is_ours_where_its_stream_is_gone_and_else_anothers(
    broker: Give, monkeypatch: pytest.MonkeyPatch, *, gone: bool
) -> None:
    async def test() -> None:
        url = broker("nats").url
        async with started(url) as other, started(url, namespace_of(other), lease=timedelta(seconds=1)) as adapter:
            await create(adapter)
            got = await receive(adapter, GROUP)
            await put(adapter, *(raw(TOPIC, body) for body in (b"done", b"given back", b"fails", b"not begun")))
            await got.arrive(4)
            link = adapter._started().link
            gate = barred(link, monkeypatch)
            await cut_off(link)
            await asyncio.sleep(1.2)  # the lease
            done, given_back, fails, _ = got.got
            got.settle(done)
            got.settle(given_back, RELEASE)
            if gone:
                await api(other, f"STREAM.DELETE.{namespace_of(adapter)}=orders")
                await create(other)
            else:
                got.settle(fails, Move(raw(GROUP.dead, b"dead")))
            gate.set()
            await link.up.wait()
            if gone:
                got.settle(fails, Move(raw(GROUP.dead, b"dead")))
                await got.arrive(5)
                assert got.bodies[4:] == [b"not begun"]
                assert [(delivery, type(error)) for delivery, _, error in got.failed] == [(given_back, LostMessage)]
            else:
                await got.arrive(8)
                assert sorted(map(bytes, filter(None, got.bodies[4:]))) == [
                    b"done",
                    b"fails",
                    b"given back",
                    b"not begun",
                ]
                assert not got.failed
            await got.consumer.flush(5.0)
            letters = [letter.message.body async for letter in other.browse(GROUP.dead)]
            assert letters == ([b"dead"] if gone else [])

    run(test())


def test_what_was_settled_while_the_link_was_down_is_finished_when_it_is_back(
    broker: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as other, started(broker("nats").url, namespace_of(other)) as adapter:
            await create(adapter)
            got = await receive(adapter, GROUP)
            await put(adapter, *(raw(TOPIC, b"%d" % number) for number in range(3)))
            await got.arrive(3)
            link = adapter._started().link
            gate = barred(link, monkeypatch)
            await cut_off(link)
            got.settle(got.got[0])
            got.settle(got.got[1], RELEASE)
            gate.set()
            await link.up.wait()
            await got.consumer.stop(5.0)  # in the moment in which it is back
            again = await receive(other, GROUP)
            await put(other, raw(TOPIC, b"later"))
            await again.arrive(3)
            assert sorted(filter(None, again.bodies)) == [b"1", b"2", b"later"]
            assert got.failed == []

    run(test())


def test_what_a_lost_server_may_not_have_is_acknowledged_again_after_a_long_while(
    broker: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as other, started(broker("nats").url, namespace_of(other)) as adapter:
            await create(adapter)
            got = await receive(adapter, GROUP)
            await put(adapter, *(raw(TOPIC, b"%d" % number) for number in range(2)))
            await got.arrive(2)
            link = adapter._started().link
            gate, write = barred(link, monkeypatch), link.write
            monkeypatch.setattr(link, "write", lambda data: b"+ACK" in data or write(data))  # it dies with that
            got.settle(got.got[0])
            await got.consumer.flush(5.0)
            monkeypatch.setattr(link, "write", write)
            await cut_off(link)
            monkeypatch.setattr("eventkit_nats.settle._RECENT", 0.0)  # longer than that
            got.settle(got.got[1])
            settling = got.consumer._settling  # type: ignore[attr-defined]
            settling.flush()
            gate.set()
            await link.up.wait()
            await got.consumer.stop(5.0)
            (pull, _) = got.consumer._sources.pulls  # type: ignore[attr-defined]
            info = await api(other, f"CONSUMER.INFO.{pull.place.stream}.{pull.durable}")
            assert (info["num_pending"], info["num_ack_pending"]) == (0, 0)

    run(test())


def test_what_was_not_renewed_in_time_begins_in_order_where_its_stream_is_gone(
    broker: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        url = broker("nats").url
        async with started(url) as other, started(url, namespace_of(other), lease=timedelta(seconds=1)) as adapter:
            await create(adapter)
            got = await receive(adapter, GROUP)
            bodies = [b"%d" % number for number in range(20)]
            await put(adapter, *(raw(TOPIC, body) for body in bodies))
            await got.arrive(20)
            link = adapter._started().link
            gate = barred(link, monkeypatch)
            await cut_off(link)
            await asyncio.sleep(1.2)  # the lease
            await api(other, f"STREAM.DELETE.{namespace_of(adapter)}=orders")
            await create(other)
            gate.set()
            await got.arrive(40)
            assert got.bodies[20:] == bodies

    run(test())


def test_acknowledgements_that_wait_are_not_sent_to_a_durable_that_another_replica_made_anew(
    broker: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as other, started(broker("nats").url, namespace_of(other)) as adapter:
            await create(other)
            got = await receive(adapter, GROUP)
            await put(adapter, *(raw(TOPIC, b"%d" % number) for number in range(3)))
            await got.arrive(3)
            link = adapter._started().link
            gate, write = barred(link, monkeypatch), link.write
            written: list[bytes] = []

            def noting(data: bytes) -> bool:
                written.append(data)
                return write(data)

            await cut_off(link)
            got.settle(got.got[2])
            (pull, _) = got.consumer._sources.pulls  # type: ignore[attr-defined]
            await api(other, f"CONSUMER.DELETE.{pull.place.stream}.{pull.durable}")
            await create(other)  # as its replica does that reads
            monkeypatch.setattr(link, "write", noting)
            gate.set()
            await link.up.wait()
            await eventually(lambda: not pull.doubted, "it is known")
            got.consumer.pause()
            await got.consumer.stop(5.0)
            assert not [data for data in written if b"+ACK" in data]
            again = await receive(other, GROUP)
            await again.arrive(3)
            assert sorted(filter(None, again.bodies)) == [b"0", b"1", b"2"]

    run(test())


def test_what_is_no_longer_listened_to_is_not_asked_for_on_the_next_connection(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            link = adapter._started().link
            heard: list[bytes] = []
            sid = link.subscribe("no.more", lambda _subject, _reply, data, _headers: heard.append(data))
            link.unsubscribe(sid)
            client = link._client
            assert client is not None
            client.abort()
            await eventually(lambda: link._client not in (None, client), "it is up again")
            link.write(b"PUB no.more 2\r\nhi\r\n")
            assert await adapter._started().exchange.fence(5.0)
            assert not heard

    run(test())


def test_messages_of_one_id_are_repeats_only_if_they_are_of_one_type(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            got = await receive(adapter, GROUP, settle_with=DONE)
            same = {h.ID: "order-7", h.MESSAGE_ID: "order-7"}
            kinds = ("Placed", "Paid", "Placed", "Sent")
            await put(adapter, *(raw(TOPIC, kind.encode(), type=kind, headers=same) for kind in kinds))
            await got.arrive(3)
            await stays(lambda: got.bodies == [b"Placed", b"Paid", b"Sent"], "each once")

    run(test())


def test_one_without_an_id_is_no_repeat_of_another_in_a_stream_that_is_gone(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            name = namespace_of(adapter)
            client = await nats.connect(broker("nats").url)
            got = await receive(adapter, GROUP)
            await client.jetstream().publish(f"{name}=orders", b"old")
            await got.arrive(1)
            got.settle(got.got[0], RELEASE)
            await got.arrive(2)
            got.settle(got.got[1])
            await api(adapter, f"STREAM.DELETE.{name}=orders")
            await create(adapter)
            await client.jetstream().publish(f"{name}=orders", b"new")
            await got.arrive(3)
            await client.close()
            assert got.bodies == [b"old", b"old", b"new"]
            first, again, other = map(foreign_id, got.got)
            assert first == again != other

    run(test())


def test_a_deleted_stream_is_made_again_too(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            got = await receive(adapter, GROUP, settle_with=DONE)
            await put(adapter, *(raw(TOPIC, b"%d" % number) for number in range(5)))
            await got.arrive(5)
            await api(adapter, f"STREAM.DELETE.{namespace_of(adapter)}=orders")
            await create(adapter, TOPIC)
            await put(adapter, raw(TOPIC, b"in the new one"))
            await eventually(lambda: b"in the new one" in got.bodies, "it reads again")
            assert got.consumer.error is None

    run(test())


def test_what_was_in_hand_when_its_stream_was_lost_still_becomes_a_retry_or_a_dead_letter(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            got = await receive(adapter, GROUP)
            await put(adapter, *(raw(TOPIC, b"%d" % number) for number in range(3)))
            await got.arrive(3)
            await api(adapter, f"STREAM.DELETE.{namespace_of(adapter)}=orders")
            await create(adapter)
            await put(adapter, raw(TOPIC, b"in the new one"))
            await got.arrive(4)
            got.settle(got.got[0], Move(raw(GROUP.dead, b"dead")))
            got.settle(got.got[1], Move(raw(GROUP.retry, b"now")))
            got.settle(got.got[2], Move(raw(GROUP.retry, b"later", due=datetime.now(UTC) + timedelta(seconds=0.2))))
            await eventually(lambda: {b"now", b"later"} <= set(got.bodies[4:]), "the retries come")
            assert [letter.message.body async for letter in adapter.browse(GROUP.dead)] == [b"dead"]
            assert not got.failed

    run(test())


def test_a_deleted_consumer_that_is_not_ours_to_make_turns_red_and_heals(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as other, started(broker("nats").url, namespace_of(other)) as adapter:
            await create(other)
            name = namespace_of(other)
            got = await receive(adapter, GROUP)
            await api(adapter, f"CONSUMER.DELETE.{name}=orders.{name}=worker")
            await eventually(lambda: isinstance(got.consumer.error, NotProvisioned), "red")
            await create(other)
            await put(adapter, raw(TOPIC, b"again"))
            await got.arrive(1)
            assert got.consumer.error is None

    run(test())


def test_a_silent_server_is_noticed(broker: Give, monkeypatch: pytest.MonkeyPatch) -> None:
    from eventkit_nats import link

    async def test() -> None:
        async with started(broker("nats").url, lease=timedelta(seconds=1)) as adapter:
            await create(adapter)
            got = await receive(adapter, GROUP)
            client = adapter._started().link._client
            assert client is not None
            client.sinks.clear()  # all that it sends is lost from here on
            await put(adapter, raw(TOPIC, b"after"))
            await got.arrive(1)
            assert adapter._started().link._client is not client

    monkeypatch.setattr(link, "_WATCH", 0.1)
    run(test())


# Connecting


def test_wrong_password_and_nobody_there_are_errors_at_once(recwarn: pytest.WarningsRecorder) -> None:
    async def refused(url: str, **settings: Any) -> Exception:
        began = time.monotonic()
        adapter = make(url, "x", **settings)
        with pytest.raises(Exception) as caught:
            await adapter.start(5.0)
        assert time.monotonic() - began < 2
        await adapter.stop(1.0)
        return caught.value

    with provide("nats", settings={"authorization": '{ user: "bo b", password: "p@ss:/%" }'}) as broker:
        port = broker.url.rpartition(":")[2]

        async def test() -> None:
            for url in (broker.url, f"nats://bob:wrong@127.0.0.1:{port}"):
                assert "uthorization" in str(await refused(url))
            assert isinstance(await refused("nats://127.0.0.1:1"), OSError)
            assert "wrong" not in repr(make(f"nats://bob:wrong@127.0.0.1:{port}", "x")._target.servers)
            async with started(f"nats://bo%20b:p%40ss%3A%2F%25@127.0.0.1:{port}", "x"):
                pass
            half = Authentication(password=SecretStr("p@ss:/%"))
            async with started(f"nats://bo%20b@127.0.0.1:{port}", "x", credentials=half):
                pass
            login = Authentication(username="bo b", password=SecretStr("p@ss:/%"))
            async with started(f"nats://127.0.0.1:{port}", "x", credentials=login):
                pass
            tls = await refused(f"tls://bo%20b:p%40ss%3A%2F%25@127.0.0.1:{port}")
            assert "secure connection" in str(tls)

        run(test())
    assert not [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)]


def test_an_account_without_jetstream_is_an_error() -> None:
    accounts = (
        "{ JS: { jetstream: enabled, users: [ { user: js, password: js } ] }, "
        "NO: { users: [ { user: plain, password: plain } ] } }"
    )

    async def test(url: str) -> None:
        with pytest.raises(Exception, match=r"(?i)jetstream"):
            await make(url.replace("//", "//plain:plain@"), "x").start(5.0)

    with provide("nats", settings={"accounts": accounts, "no_auth_user": "js"}) as broker:
        run(test(broker.url))


@pytest.mark.parametrize("first", [False, True])
def test_tls(tmp_path: Path, first: bool) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = f'{{ cert_file: "{certificate}", key_file: "{key}", handshake_first: {"auto" if first else "false"} }}'

    async def test(url: str) -> None:
        async with started(url, "tls", tls=Tls(ca_file=certificate), tls_first=first) as adapter:
            await create(adapter)
            await put(adapter, raw(TOPIC, b"x" * 100_000))
            assert len(await contents(adapter, TOPIC)) == 1
        with pytest.raises(Exception, match=r"(?i)certificate"):
            await make(url, "tls", tls_first=first).start(3.0)

    with provide("nats", settings={"tls": tls}) as broker:
        run(test(broker.url.replace("nats://", "tls://")))


def test_settings_come_from_the_environment_and_hide_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_NATS__LEASE", "PT5S")
    monkeypatch.setenv("EVENTKIT_NATS__CREDENTIALS__TOKEN", "hush")
    settings = NatsSettings()
    assert settings.lease == timedelta(seconds=5)
    assert "hush" not in repr(settings)
    monkeypatch.setenv("EVENTKIT_NATS__CREDENTIALS__USERNAME", "both")
    with pytest.raises(ValueError, match="one of"):
        NatsSettings()
    with pytest.raises(SettingsError, match="encoded") as caught:
        NatsAdapter(Connection(SecretStr("nats://me:hu/sh@x"), "", "test", NatsSettings(credentials=Authentication())))
    assert "hu" not in str(caught.value)
    with pytest.raises(SettingsError, match="nats://"):
        NatsAdapter(Connection(SecretStr("redis://:hush@x"), "", "test", NatsSettings(credentials=Authentication())))


def test_nothing_is_left_running(broker: Give) -> None:
    async def test() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter)
            got: Sequence[Any] = [await receive(adapter, GROUP) for _ in range(3)]
            await put(adapter, raw(TOPIC, b"x"))
            await eventually(lambda: any(one.got for one in got), "it arrived")
        assert asyncio.all_tasks() == {asyncio.current_task()} or len(asyncio.all_tasks()) <= 2

    run(test())


def test_what_a_stop_gives_back_keeps_its_order_though_more_was_asked_for(broker: Give) -> None:
    async def main() -> None:
        async with started(broker("nats").url) as adapter:
            await create(adapter, TOPIC, GROUP)
            await put(adapter, *(raw(TOPIC, b"%d" % number) for number in range(30)))
            first = await receive(adapter, GROUP, in_flight=100)
            await eventually(lambda: len(first.got) == 30, "all are here, and more is asked for")
            for delivery in first.got[:10]:
                first.settle(delivery, DONE)
            await first.consumer.stop(5.0)
            second = await receive(adapter, GROUP, in_flight=100, settle_with=DONE)
            await eventually(lambda: len(second.got) == 20, "what was given back is here")
            await second.consumer.stop(5.0)
        assert [delivery.message.body for delivery in second.got] == [b"%d" % number for number in range(10, 30)]

    run(main())
