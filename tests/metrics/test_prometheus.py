"""What Prometheus collects after traffic that is known, on every backend."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import eventkit
import eventkit.blocking
from eventkit import Batch, Circuit, Message, Reject, Retry, Service, Topic
from eventkit.adapter import Address
from eventkit.contract.checks import eventually, fresh_namespace
from eventkit.errors import DeclarationError
from eventkit.probes import Probes
from eventkit.prometheus import Metrics
from eventkit.testing.brokers import Broker
from tests.wanted import wanted


class Counted(eventkit.Event, topic="counted", key="number"):
    number: int


class Doubled(eventkit.Event, topic="doubled"):
    number: int


class Count(eventkit.Command[int], service="counting"):
    number: int


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", wanted(metafunc.config))


class Scraped:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [one for family in text_string_to_metric_families(text) for one in family.samples]

    def __call__(self, name: str, **labels: str) -> float | None:
        """The sum of all samples of this name that have these labels; None: there is none."""
        found = [one.value for one in self.samples if one.name == name and labels.items() <= one.labels.items()]
        return sum(found) if found else None


async def scraped(metrics: Metrics) -> Scraped:
    return Scraped((await metrics.page()).body.decode())


def connected(backend: str, broker: Callable[[str], Broker], metrics: Metrics) -> eventkit.Bus:
    url = None if backend == "memory" else broker(backend).url
    return eventkit.connect(backend, url, service="shop", namespace=fresh_namespace(), instruments=[metrics])


def in_memory(metrics: Metrics) -> eventkit.Bus:
    return eventkit.connect("memory", namespace=fresh_namespace(), instruments=[metrics])


def fresh(every: float = 0.0) -> Metrics:
    return Metrics(CollectorRegistry(), backlog_every=timedelta(seconds=every))


def run(story: Awaitable[None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await story

    asyncio.run(limited())


def counting() -> Service:
    service = Service("counting", retry=Retry(attempts=2, first_delay=timedelta(0)))

    @service.handler
    async def double(event: Counted) -> Doubled:
        if event.number < 0:
            raise ValueError("negative")
        return Doubled(number=2 * event.number)

    @service.handler
    async def count(command: Count) -> int:
        if command.number < 0:
            raise Reject("negative")
        return command.number

    @service.handler(group="audit", retry=Retry(attempts=1))
    def audit(event: Counted) -> None:
        if event.number == -2:
            raise ValueError("no audit")

    return service


def test_the_counts_after_known_traffic(backend: str, broker: Callable[[str], Broker]) -> None:
    async def story() -> None:
        metrics = fresh()
        async with connected(backend, broker, metrics) as bus, bus.run(counting()) as running:
            before = await scraped(metrics)
            of = {"service": "counting", "group": "counting", "type": "Counted"}
            assert before("eventkit_messages_total", **of, outcome="dead") == 0, "told before the first one"
            await bus.publish_many([Counted(number=n) for n in range(5)])
            await bus.publish(Counted(number=-1))
            await bus.publish(Counted(number=-2))
            assert await bus.request(Count(number=3)) == 3
            with pytest.raises(eventkit.CommandRejected):
                await bus.request(Count(number=-1))
            await eventually(lambda: running.counts["counting"].dead == 2, "both are given up on")
            await eventually(lambda: running.counts["counting"].handled == 6, "the others are handled")
            audit = running.counts["counting.audit"]
            await eventually(lambda: (audit.handled, audit.dead) == (6, 1), "all are audited")
            await eventually(lambda: running.at_work == 0, "all is settled")
            await told(metrics, bus.broker)

        gone = await scraped(metrics)
        assert gone("eventkit_in_flight") is None, "what does not run has no state"
        assert gone("eventkit_messages_total", **of, outcome="handled") == 5, "and its counts stay"

    async def told(metrics: Metrics, name: str) -> None:
        async def settled() -> bool:
            dead = (await scraped(metrics))("eventkit_backlog", group="counting", state="dead")
            return dead == 2

        async with asyncio.timeout(20):  # a copy is confirmed a little after it is decided on
            while not await settled():
                await asyncio.sleep(0.05)
        found = await scraped(metrics)

        def of(group: str, type_: str, outcome: str) -> float | None:
            labels = {"service": "counting", "group": group, "type": type_, "outcome": outcome}
            return found("eventkit_messages_total", **labels)

        assert of("counting", "Counted", "handled") == 5
        assert of("counting", "Counted", "retried") == 2
        assert of("counting", "Counted", "dead") == 2
        assert of("counting", "Count", "handled") == 1
        assert of("counting", "Count", "rejected") == 1
        assert of("counting.audit", "Counted", "handled") == 6
        assert of("counting.audit", "Counted", "dead") == 1
        dead = {"group": "counting", "type": "Counted"}
        assert found("eventkit_dead_letters_total", **dead, reason="exhausted") == 2
        assert found("eventkit_dead_letters_total", **dead, reason="undecodable") == 0
        assert found("eventkit_handler_seconds_count", group="counting", type="Counted") == 9, "7, two of them twice"
        assert found("eventkit_handler_seconds_bucket", group="counting", type="Counted", le="+Inf") == 9
        assert found("eventkit_message_age_seconds_count", group="counting", type="Counted") == 7, "first attempts"
        age = found("eventkit_message_age_seconds_sum", group="counting", type="Counted")
        assert age is not None
        assert 0 < age < 7 * 30
        assert found("eventkit_published_total", service="shop", type="Counted", outcome="confirmed") == 7
        assert found("eventkit_published_total", service="shop", type="Count", outcome="confirmed") == 2
        assert found("eventkit_published_total", service="counting", type="Doubled", outcome="confirmed") == 5
        assert found("eventkit_publish_seconds_count", service="shop")
        assert found("eventkit_request_seconds_count", service="shop") == 2
        assert found("eventkit_in_flight", group="counting") == 0
        assert found("eventkit_consuming", group="counting.audit") == 1
        assert found("eventkit_backlog", group="counting.audit", state="dead") == 1
        assert found("eventkit_backlog", group="counting", state="ready") == 0
        assert found("eventkit_backlog", group="counting", state="delayed") == 0
        assert "negative" not in found.text

    run(story())


def test_what_waits_is_backlog(backend: str, broker: Callable[[str], Broker]) -> None:
    async def story() -> None:
        metrics = fresh()
        service = Service("counting", retry=Retry(attempts=2, first_delay=timedelta(hours=1)))

        @service.handler
        async def double(event: Counted) -> None:
            raise ValueError("later")

        async with connected(backend, broker, metrics) as bus, bus.run(service):
            await bus.publish_many([Counted(number=n) for n in range(3)])

            async def delayed() -> float | None:
                return (await scraped(metrics))("eventkit_backlog", group="counting", state="delayed")

            async with asyncio.timeout(20):
                while await delayed() != 3:
                    await asyncio.sleep(0.05)
            found = await scraped(metrics)
            assert found("eventkit_messages_total", group="counting", outcome="retried") == 3
            assert found("eventkit_backlog", group="counting", state="dead") == 0

    run(story())


def test_types_that_are_not_declared_here_share_a_label() -> None:
    foreign = Topic("foreign-metrics")

    async def story() -> None:
        metrics = fresh()
        service = Service("counting")

        @service.handler(topic=foreign)
        async def everything(event: eventkit.Event) -> None: ...

        async with in_memory(metrics) as bus, bus.run(service) as running:
            headers = {"content-type": "application/json"}
            address = Address("topic", "foreign-metrics")
            await bus.adapter.publish(
                [
                    Message(
                        address,
                        f"Made.Up.{n}",
                        None,
                        {**headers, "ce-id": str(n), "ce-type": f"Made.Up.{n}"},
                        b"{}",
                    )
                    for n in range(50)
                ]
            )
            await eventually(lambda: running.counts["counting"].handled == 50, "they are handled")
            found = await scraped(metrics)
        assert found("eventkit_messages_total", type="other", outcome="handled") == 50
        assert "Made.Up" not in found.text

    run(story())


def test_a_circuit_and_what_is_in_flight() -> None:
    async def story() -> None:
        metrics = fresh()
        service = Service("counting", retry=Retry(attempts=20, first_delay=timedelta(hours=1)))
        hold = asyncio.Event()

        @service.handler(circuit=Circuit(failures=3, pause=timedelta(minutes=5)))
        async def double(event: Counted) -> None:
            raise ConnectionError("away")

        @service.handler
        async def slow(event: Doubled) -> None:
            await hold.wait()

        async with in_memory(metrics) as bus, bus.run(service) as running:
            await bus.publish(Doubled(number=1))
            await bus.publish_many([Counted(number=n) for n in range(4)])
            await eventually(lambda: running.health().circuits, "the handler rests")
            found = await scraped(metrics)
            hold.set()
        assert found("eventkit_circuit_open", group="counting") == 1
        in_flight = found("eventkit_in_flight", group="counting")
        assert in_flight is not None
        assert in_flight >= 1

    run(story())


def test_a_batch_is_one_call_of_many_messages() -> None:
    async def story() -> None:
        metrics = fresh()
        service = Service("counting")

        @service.handler(batch=Batch(size=4, wait=timedelta(seconds=10)))
        async def double(events: list[Counted]) -> None: ...

        async with in_memory(metrics) as bus, bus.run(service) as running:
            await bus.publish_many([Counted(number=n) for n in range(4)])
            await eventually(lambda: running.counts["counting"].handled == 4, "they are handled")
            found = await scraped(metrics)
        assert found("eventkit_messages_total", type="Counted", outcome="handled") == 4
        assert found("eventkit_handler_seconds_count", type="Counted") == 1
        assert found("eventkit_message_age_seconds_count", type="Counted") == 4

    run(story())


def test_a_refused_publish_is_counted() -> None:
    class Unowned(eventkit.Command, service="nobody-metrics"):
        pass

    async def story() -> None:
        metrics = fresh()
        async with in_memory(metrics) as bus:
            with pytest.raises(eventkit.NoOwner):
                await bus.send(Unowned())
            found = await scraped(metrics)
        assert found("eventkit_published_total", outcome="refused") == 1

    run(story())


def test_however_often_it_is_scraped_the_broker_is_asked_at_its_own_rate() -> None:
    async def story() -> None:
        metrics = fresh(every=600)
        asked = 0
        async with in_memory(metrics) as bus:
            measure = bus.adapter.measure

            async def counted(group: object) -> object:
                nonlocal asked
                asked += 1
                return await measure(group)  # type: ignore[arg-type]

            bus.adapter.measure = counted  # type: ignore[method-assign, assignment]
            async with bus.run(counting()):
                for _ in range(20):
                    await asyncio.gather(*(metrics.page() for _ in range(5)))
        assert asked == 2, "once for each group"

    run(story())


def test_a_registry_takes_one() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    with pytest.raises(DeclarationError, match="make one Metrics"):
        Metrics(registry)


def test_at_the_health_port() -> None:
    def get(port: int) -> tuple[int, str, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return answer.status, answer.headers["content-type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers["content-type"], error.read().decode()

    async def story() -> None:
        async with Probes(0) as probes:
            assert (await asyncio.to_thread(get, probes.port))[0] == 503
            async with eventkit.connect("memory", namespace=fresh_namespace()) as bus, bus.run(counting()) as running:
                with probes.of(running):
                    status, _, body = await asyncio.to_thread(get, probes.port)
            assert (status, "EVENTKIT_METRICS" in body) == (404, True)
            metrics = fresh()
            async with in_memory(metrics) as bus, bus.run(counting()) as running:
                with probes.of(running):
                    await bus.publish(Counted(number=1))
                    await eventually(lambda: running.counts["counting"].handled, "it is handled")
                    status, kind, body = await asyncio.to_thread(get, probes.port)
                assert (await asyncio.to_thread(get, probes.port))[0] == 200, "also while it drains"
        assert status == 200
        assert kind.startswith("text/plain; version=")
        assert Scraped(body)("eventkit_messages_total", group="counting", type="Counted", outcome="handled") == 1

    run(story())


def test_in_an_app() -> None:
    from fastapi import FastAPI

    import eventkit.fastapi
    from tests.web.served import served

    async def asked(app: FastAPI) -> tuple[int, str]:
        async with served(app) as client:
            answer = await client.get("/metrics")
        return answer.status_code, answer.text

    metrics = fresh()
    for instruments, status in (([metrics], 200), ([], 404)):
        made = lambda given=instruments: eventkit.connect("memory", instruments=given)  # noqa: E731
        app = FastAPI(lifespan=eventkit.fastapi.lifespan(counting(), connect=made))
        app.include_router(eventkit.fastapi.router())
        found, text = asyncio.run(asked(app))
        assert found == status
        if status == 200:
            assert Scraped(text)("eventkit_consuming", group="counting") == 1


def test_a_thread_that_has_ended_is_still_counted() -> None:
    metrics = fresh()

    def in_a_thread() -> None:
        with eventkit.blocking.connect("memory", service="script", instruments=[metrics]) as bus:
            bus.publish(Counted(number=1))

    in_a_thread()
    in_a_thread()
    found = Scraped(asyncio.run(metrics.page()).body.decode())
    assert found("eventkit_published_total", service="script", type="Counted", outcome="confirmed") == 2
