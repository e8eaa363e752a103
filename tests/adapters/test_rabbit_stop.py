"""What RabbitMQ has of a consumer that stops: all that was settled, whatever was under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest

from eventkit.adapter import Group
from eventkit.testing.brokers import Broker
from eventkit_rabbit import consume
from tests.adapters.test_rabbit import GROUP, TOPIC, Inbox, World, message, run, until, world
from tests.proxy import Proxy


@pytest.fixture
def url(broker: Callable[[str], Broker]) -> str:
    return broker("rabbit").url


@asynccontextmanager
async def behind(proxy: Proxy, url: str) -> AsyncIterator[World]:
    """Adapters that reach the broker through the proxy."""
    parts = urlsplit(url)
    assert parts.port is not None
    proxy.to(parts.port)
    user, at, _ = parts.netloc.rpartition("@")
    async with world(urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{proxy.port}"))) as made:
        yield made


async def left(w: World) -> list[str]:
    """What is still there for the group, in order, once somebody reads it."""
    adapter = await w.adapter()
    inbox = await w.consume(adapter, Inbox())
    assert await adapter.publish([message(TOPIC, "end")]) == [None]
    await until(lambda: "end" in inbox.ids)
    await inbox.consumer.stop(5)
    return inbox.ids[:-1]


@pytest.mark.parametrize("held", [0, 1], ids=["all settled", "one held"])
def test_what_is_settled_right_before_a_stop_is_written(url: str, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few settlements wait for company; a stop does not leave them to the time after which they go alone."""
    monkeypatch.setattr(consume, "_FLUSH_AFTER", 600.0)

    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox(lambda _: None))
            await adapter.publish([message(TOPIC, n) for n in range(5)])
            await until(lambda: len(inbox.got) == 5)
            for delivery in inbox.got[held:]:
                inbox.settle(delivery)
            await inbox.consumer.stop(5)
            assert await left(w) == inbox.ids[:held]

    run(work())


def test_a_stop_that_runs_out_of_time_gives_back_what_is_held_and_leaves_others_alone(url: str) -> None:
    """What it settled counts; the connection, and what others hold on it, stays."""

    async def work(proxy: Proxy) -> None:
        audit = Group("audit", (TOPIC,))
        async with behind(proxy, url) as w:
            adapter = await w.provisioned(GROUP, audit)
            stopped = await w.consume(adapter, Inbox(lambda _: None))
            other = await w.consume(adapter, Inbox(lambda _: None), audit)
            assert await adapter.publish([message(TOPIC, n) for n in range(5)]) == [None] * 5
            await until(lambda: len(stopped.got) == len(other.got) == 5)
            wire = adapter._now()._consuming.now()
            assert wire is not None
            proxy.stall()
            for delivery in stopped.got[1:]:
                stopped.settle(delivery)
            began = asyncio.get_running_loop().time()
            await stopped.consumer.stop(0.1)
            assert asyncio.get_running_loop().time() - began < 3.0
            proxy.mend()
            assert await left(w) == ["0"]
            assert adapter._now()._consuming.now() is wire
            for delivery in other.got:
                other.settle(delivery)
            await other.consumer.flush(5)
            assert await adapter.publish([message(TOPIC, "last")]) == [None]
            await until(lambda: "last" in other.ids)
            assert len(other.got) == 7, "each once"

    with Proxy() as proxy:
        run(work(proxy))


def test_a_flush_that_runs_out_of_time_leaves_the_channel_to_what_follows(url: str) -> None:
    """The client closes a channel on which a call is cut off, and what is written there then ends the connection. So it
    was when a stop ended the trial of a suspect, and what others had begun was settled after it."""

    async def work(proxy: Proxy) -> None:
        async with behind(proxy, url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox(lambda _: None))
            assert await adapter.publish([message(TOPIC, n) for n in range(5)]) == [None] * 5
            await until(lambda: len(inbox.got) == 5)
            proxy.stall()
            with pytest.raises(TimeoutError):
                await inbox.consumer.flush(0.1)
            for delivery in inbox.got:
                inbox.settle(delivery)
            proxy.mend()
            assert await adapter.publish([message(TOPIC, "next")]) == [None]
            await until(lambda: "next" in inbox.ids)
            assert inbox.ids == ["0", "1", "2", "3", "4", "next"], "what was settled came again"
            await inbox.consumer.stop(5)
            assert await left(w) == ["next"]

    with Proxy() as proxy:
        run(work(proxy))


def test_a_flush_on_a_channel_that_is_lost_says_so(url: str) -> None:
    """The client says nothing of its own then."""

    async def work() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox())
            wire = adapter._now()._consuming.now()
            assert wire is not None
            flushing = asyncio.create_task(inbox.consumer.flush(5))
            await asyncio.sleep(0)
            wire.abort(ConnectionError("cut"))
            with pytest.raises(ConnectionError, match="group shipping lost its channel: what it had settled"):
                await flushing

    run(work())
