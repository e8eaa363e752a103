"""A user whom the broker no longer knows, while a service runs: it is said, and all goes on when he is known again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

import pytest

import eventkit
from eventkit import Event, PublishError, Service
from eventkit.contract.checks import eventually, fresh_namespace
from tests.faults.refusing import rabbitmqctl
from tests.security.conftest import Watch
from tests.security.servers import ADMIN, USER, Secured

Give = Callable[[str], Secured]
RED, ANSWER, BACK = 15.0, 5.0, 20.0
"""Seconds within which health says so, a publish is answered, all goes on."""


class Rang(Event, topic="bells"):
    number: int


async def _redis(found: Secured, known: bool) -> None:
    import redis.asyncio

    url = found.broker.url
    async with redis.asyncio.Redis.from_url(url, username=ADMIN, password=found.papers.secret) as client:
        await client.execute_command("ACL", "SETUSER", USER, "on" if known else "off")
        if not known:
            await client.execute_command("CLIENT", "KILL", "USER", USER)


async def _nats(found: Secured, known: bool) -> None:
    server = found.broker._running
    file = server._folder / "nats.conf"  # type: ignore[union-attr]
    now, then = (f'user: "{USER}"', f'user: "{USER}-gone"')[:: -1 if known else 1]
    file.write_text(file.read_text().replace(now, then))
    os.kill(server._kept["nats"][1], signal.SIGHUP)  # type: ignore[union-attr]


async def _rabbit(found: Secured, known: bool) -> None:
    await rabbitmqctl(found.broker, "change_password", USER, found.papers.secret if known else "another")
    if not known:
        await rabbitmqctl(found.broker, "close_all_connections", "changed")


CHANGE: Mapping[str, Callable[[Secured, bool], Awaitable[None]]] = {"redis": _redis, "nats": _nats, "rabbit": _rabbit}
"""Kafka asks for a password when a connection begins, and has no way to end one that is open."""


@pytest.mark.parametrize("name", CHANGE)
def test_a_revoked_user_is_told_and_comes_back(
    name: str, secured: Give, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    found = secured(name)
    settings = {**found.environment(PUBLISH_TIMEOUT="PT2S"), "EVENTKIT_NAMESPACE": fresh_namespace()}
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)
    seen: list[int] = []
    service = Service("tower", stop_timeout=timedelta(seconds=2))

    @service.handler
    async def rang(event: Rang) -> None:
        seen.append(event.number)

    async def main() -> None:
        async with eventkit.connect() as bus, bus.run(service) as running:
            await bus.publish(Rang(number=1))
            await eventually(lambda: seen == [1], "it flows")
            await CHANGE[name](found, False)
            try:
                await eventually(lambda: not running.health().ok, "health is red", RED)
                await eventually(
                    lambda: any(word in str(running.health()).lower() for word in ("auth", "access", "username")),
                    f"and says why: {running.health()}",
                    RED,
                )
                watch.text(running.health())
                began = time.monotonic()
                with pytest.raises(PublishError) as caught:
                    await bus.publish(Rang(number=2), id="two")
                watch.error(caught.value)
                assert time.monotonic() - began < ANSWER
            finally:
                await CHANGE[name](found, True)
            await eventually(lambda: running.health().ok, f"health is green: {running.health()}", BACK)
            await bus.publish(Rang(number=3))
            await eventually(lambda: 3 in seen, "it flows again", BACK)

    asyncio.run(main())
