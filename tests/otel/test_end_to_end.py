"""From one process to another, over a real broker, into a collector: set up by environment variables alone."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from eventkit.contract.checks import fresh_namespace
from eventkit.testing.brokers import NAMES, Broker
from tests.otel.collector import Collector
from tests.programs import EVENTKIT, Program, environment
from tests.wanted import wanted

_SHOP = """
import eventkit

class OrderPlaced(eventkit.Event, topic="orders"):
    order_id: str

service = eventkit.Service("shipping")

@service.handler
async def book(event: OrderPlaced) -> None:
    print("booked", event.order_id)
"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        names = wanted(metafunc.config)
        metafunc.parametrize("name", [name for name in NAMES if name in names][:1])


def test_a_publisher_and_a_service_tell_a_collector(name: str, broker: Callable[[str], Broker], tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(_SHOP)
    with Collector() as collector:
        env = {
            "EVENTKIT_BROKER": name,
            "EVENTKIT_URL": broker(name).url,
            "EVENTKIT_NAMESPACE": fresh_namespace(),
            "EVENTKIT_TRACING": "otel",
            "EVENTKIT_METRICS": "otel",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        }
        with Program(*EVENTKIT, "run", "shop:service", env=env, cwd=tmp_path) as program:
            program.wait_for("shipping is running")
            publish = [*EVENTKIT, "publish", "shop:OrderPlaced", '{"order_id": "a"}']
            other = "service.namespace=eu,service.name=webshop"
            env_of_shop = environment({**env, "EVENTKIT_SERVICE": "shop", "OTEL_RESOURCE_ATTRIBUTES": other})
            done = subprocess.run(
                publish, env=env_of_shop, cwd=tmp_path, timeout=60, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            program.wait_for("booked a")
            program.tell(signal.SIGTERM)
            assert program.wait() == 0, program.output

    spans = {(service, span.name): span for service, span in collector.spans}
    shop, shipping = "webshop", "shipping"  # as OTEL_* name it; else as the service is called
    assert set(spans) == {
        (shop, "create orders"),
        (shop, "publish orders"),
        (shipping, "process orders"),
        (shipping, "ack orders"),
    }
    published, processed = spans[shop, "create orders"], spans[shipping, "process orders"]
    assert processed.trace_id == published.trace_id
    assert processed.parent_span_id == published.span_id
    assert processed.kind == processed.SPAN_KIND_CONSUMER
    assert {name for name in collector.metrics if name.startswith("messaging.")} == {
        "messaging.client.sent.messages",
        "messaging.client.operation.duration",
        "messaging.client.consumed.messages",
        "messaging.process.duration",
    }
