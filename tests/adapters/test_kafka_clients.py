"""aiokafka's clients, begun and ended, without a broker."""

from __future__ import annotations

import asyncio
import logging

import pytest

pytest.importorskip("eventkit_kafka")

from eventkit_kafka import clients
from eventkit_kafka.clients import begin
from eventkit_kafka.quiet import quiet


def test_a_topic_that_is_looked_for_is_no_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """What aiokafka says of one that is made a moment later, or that we raise an error about."""
    quiet()
    aiokafka = logging.getLogger("aiokafka.cluster")
    aiokafka.error("Topic %s not found in cluster metadata", "orders")
    aiokafka.error("Topic %s is not authorized for this client", "orders")
    assert [record.getMessage() for record in caplog.records] == ["Topic orders is not authorized for this client"]


def test_a_start_that_is_given_up_comes_to_its_end() -> None:
    """aiokafka closes a connection that it has just made only after the broker's first answer."""
    open_connections = 0

    async def start() -> None:
        nonlocal open_connections
        open_connections += 1
        await asyncio.sleep(0.1)
        open_connections -= 1

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await begin(start)
        assert open_connections == 0

    asyncio.run(main())


def test_a_start_that_hangs_is_cut_off_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_MOMENT", 0.05)

    async def main() -> None:
        before = asyncio.all_tasks()
        async with asyncio.timeout(5.0):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await begin(asyncio.Event().wait)  # type: ignore[arg-type]
        assert asyncio.all_tasks() == before

    asyncio.run(main())


def test_a_start_that_is_given_up_twice_does_not_go_on() -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        giving_up = asyncio.ensure_future(begin(asyncio.Event().wait))  # type: ignore[arg-type]
        for _ in range(2):
            await asyncio.sleep(0.02)
            giving_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await giving_up
        assert asyncio.all_tasks() == before

    asyncio.run(main())


def test_a_start_that_fails_says_why() -> None:
    async def start() -> None:
        raise LookupError("on purpose")

    async def main() -> None:
        with pytest.raises(LookupError):
            await begin(start)

    asyncio.run(main())
