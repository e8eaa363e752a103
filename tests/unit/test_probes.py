"""Health: what a bus and its services say of themselves, over HTTP and at the prompt."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from eventkit import Bus, Event, Health, Service, SettingsError, probes
from eventkit.adapter import Connection
from eventkit.cli import app
from eventkit.memory import MemoryAdapter, Store
from eventkit.probes import Probes
from eventkit.running import Running
from tests.programs import EVENTKIT, Program


class Rang(Event, topic="bells"):
    pass


@asynccontextmanager
async def _running() -> AsyncIterator[tuple[Running, MemoryAdapter]]:
    service = Service("tower")

    @service.handler
    async def rang(event: Rang) -> None: ...

    @service.handler(group="audit")
    async def audited(event: Rang) -> None: ...

    adapter = MemoryAdapter(Connection(url=None, namespace="", client="test"), store=Store())
    async with Bus(adapter, source="test") as bus, bus.run(service) as running:
        yield running, adapter


def _ask(port: int, path: str, method: str = "GET") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
        return response.status, json.loads(body) if body else None
    finally:
        connection.close()


def test_health_names_each_group_and_the_broker() -> None:
    async def main() -> None:
        async with _running() as (running, adapter):
            assert running.health() == Health(ok=True)
            assert str(running.health()) == "ready"
            adapter._consumers[1].error = RuntimeError("gone")
            assert running.health() == Health(ok=False, errors={"tower.audit": "RuntimeError: gone"})
            adapter.error = ConnectionError()
            found = running.health()
            assert found.broker == "ConnectionError"
            assert "tower.audit" in str(found)
            assert "broker" in str(found)

    asyncio.run(main())


def test_a_bus_that_only_publishes_knows_whether_its_broker_is_there() -> None:
    async def main() -> None:
        adapter = MemoryAdapter(Connection(url=None, namespace="", client="test"), store=Store())
        async with Bus(adapter, source="test") as bus:
            assert bus.health().ok
            adapter.error = ConnectionError("cut")
            assert bus.health() == Health(ok=False, broker="ConnectionError: cut")

    asyncio.run(main())


def test_probes_tell_starting_ready_red_and_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Probes(0) as found:
            ask = lambda path, **more: asyncio.to_thread(_ask, found.port, path, **more)  # noqa: E731
            assert (await ask("/health/live"))[0] == 200
            status, said = await ask("/health/ready")
            assert (status, said["status"]) == (503, "not ready")
            async with _running() as (running, adapter):
                with found.of(running):
                    assert await ask("/health/ready") == (200, {"status": "ready"})
                    assert await ask("/health/live?from=kubelet") == (200, {"status": "live"})
                    assert await ask("/health/ready", method="HEAD") == (200, None)
                    assert (await ask("/health/ready", method="POST"))[0] == 405
                    assert (await ask("/metrics"))[0] == 404
                    adapter._consumers[0].error = RuntimeError("gone")
                    status, said = await ask("/health/ready")
                    assert (status, said["errors"]) == (503, {"tower": "RuntimeError: gone"})
                    assert (await ask("/health/live"))[0] == 200
                    monkeypatch.setattr(probes, "_STUCK", 0.0)
                    status, said = await ask("/health/live")
                    assert (status, said["errors"]) == (503, {"tower": "RuntimeError: gone"})
                    adapter.error = ConnectionError("away")  # a restart would not help
                    assert (await ask("/health/live"))[0] == 200
                assert (await ask("/health/ready"))[1]["broker"] == "stopping"

    asyncio.run(main())


def test_what_is_no_request_harms_nobody() -> None:
    async def main() -> None:
        async with Probes(0) as found:
            for junk in (b"", b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01" + bytes(200) + b"\r\n\r\n", b"x" * 20_000):
                reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
                writer.write(junk)
                writer.write_eof()
                async with asyncio.timeout(5):
                    await reader.read()
                writer.close()
            assert (await asyncio.to_thread(_ask, found.port, "/health/live"))[0] == 200

    asyncio.run(main())


def test_a_port_that_is_taken_is_named() -> None:
    async def main() -> None:
        async with Probes(0) as found:
            with pytest.raises(SettingsError, match=str(found.port)):
                await Probes(found.port).__aenter__()

    asyncio.run(main())


@pytest.fixture
def port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found: int = taken.getsockname()[1]
    return found


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("abc", "eventkit: EVENTKIT_HEALTH_PORT: this is no whole number; write a whole number from 0 to 65535\n"),
        ("", "eventkit: say at which port: --port, or EVENTKIT_HEALTH_PORT, as for `eventkit run`\n"),
    ],
)
def test_a_port_of_the_environment_that_is_none_is_told(value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_HEALTH_PORT", value)
    asked = CliRunner().invoke(app, ["health"])
    assert (asked.exit_code, asked.stderr) == (2, said)


def test_the_command_asks_a_running_process(port: int) -> None:
    ask: Callable[..., Any] = lambda *more: CliRunner().invoke(app, ["health", "--port", str(port), *more])  # noqa: E731
    nobody = ask()
    assert nobody.exit_code == 1
    assert f"--health-port {port}" in nobody.output
    env = {"EVENTKIT_BROKER": "memory", "EVENTKIT_HEALTH_PORT": str(port)}
    with Program(*EVENTKIT, "run", "examples.shop:services", env=env) as program:
        program.wait_for(rf"http://127.0.0.1:{port}/health/ready")
        program.wait_for("is running on memory")
        for _ in range(50):
            ready = ask()
            if ready.exit_code == 0:
                break
        assert (ready.exit_code, ready.output) == (0, "ready\n")
        assert ask("--live", "--json").output == '{"status": "live"}\n'
