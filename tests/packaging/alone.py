"""That one extra, and nothing else, brings what it is for: run where eventkit is installed with it alone.

    python alone.py redis

A broker is provided as for the tests; where it cannot be had, its extra is not proven, and that is an error.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROKERS = ("kafka", "nats", "rabbit", "redis")
PATIENCE = 60.0
SHOP = """
import asyncio
from contextlib import asynccontextmanager

from eventkit import Event, Service


class Sold(Event, topic="sales"):
    item: str


service = Service("shop")


@service.handler
async def sold(event: Sold) -> None: ...


@asynccontextmanager
async def saying():
    print("it runs on", type(asyncio.get_running_loop()).__module__, flush=True)
    yield


speaking = Service("speaking", lifespan=saying)


@speaking.handler
async def heard(event: Sold) -> None: ...
"""
IN_MEMORY = """
import asyncio

import eventkit.blocking
import eventkit.testing
import shop


async def story():
    async with eventkit.testing.run(shop.service) as t:
        await t.publish(shop.Sold(item="tea"))
        await t.idle()
    async with eventkit.connect("memory") as bus, bus.run(shop.service):
        await bus.publish(shop.Sold(item="tea"))


asyncio.run(story())
"""
OF_EXTRAS = re.compile(
    "aio_pika|aiokafka|aiormq|cramjam|d2|fastapi|faststream|nats|nkeys|opentelemetry|prometheus_client|redis|sqlalchemy"
    "|starlette|uvicorn|uvloop|watchfiles|yaml"
)
"""What no import of eventkit may bring along before it is asked for."""


def nothing_is_imported_before_it_is_needed() -> None:
    """With an extra installed, neither `import eventkit` nor work in memory imports what it brings."""
    code = IN_MEMORY + "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=PATIENCE)
    early = sorted({name.partition(".")[0] for name in done.stdout.split()})
    early = [name for name in early if OF_EXTRAS.fullmatch(name)]
    assert not early, f"imported before they are needed: {early}"


def broker(name: str) -> None:
    """An event and a reply go through the real one, and the others say how they are installed."""
    import eventkit
    from eventkit.testing.brokers import provide

    class Ping(eventkit.Command[int], service="alone"):
        number: int

    service = eventkit.Service("alone")

    @service.handler
    async def ping(command: Ping) -> int:
        return command.number + 1

    async def story(url: str) -> None:
        namespace = f"alone-{uuid.uuid4().hex[:8]}"
        async with eventkit.connect(name, url, namespace=namespace) as bus, bus.run(service):
            assert await bus.request(Ping(number=1)) == 2

    given = provide(name)
    try:
        asyncio.run(story(given.url))
    finally:
        given.stop()


def others_say_how_to_install(*here: str) -> None:
    import eventkit

    for name in BROKERS:
        if name not in here:
            said = "nothing: its client is here, without its extra"
            try:
                eventkit.connect(name)
            except eventkit.AdapterNotFound as error:
                said = str(error)
            assert f"pip install 'faststream-eventkit[{name}]'" in said, f"{name}: {said}"


def docs() -> None:
    importlib.import_module("eventkit.asyncapi.pages")
    for words in (("yaml", "shop:service"), ("build", "shop:service", "--output", "site")):
        command("docs", *words)
    assert Path("site", "index.html").stat().st_size


def speed() -> None:
    with program("run", "shop:speaking", EVENTKIT_LOOP="uvloop") as lines:
        wait_for(lines, "it runs on uvloop")


def reload() -> None:
    with program("run", "shop:speaking", "--reload") as lines:
        wait_for(lines, "it runs on")
        Path("shop.py").write_text(SHOP.replace("it runs on", "it runs again on"))
        wait_for(lines, "it runs again on")
    Path("shop.py").write_text(SHOP)


def sql() -> None:
    """A handler and its mark in one transaction, on the database that Python has."""
    from sqlalchemy import create_engine

    import eventkit
    import eventkit.sql

    class Sold(eventkit.Event, topic="sales"):
        item: str

    Path("shop.db").unlink(missing_ok=True)
    service, seen = eventkit.Service("shop"), []
    store = eventkit.sql.BlockingSqlStore(create_engine("sqlite:///shop.db"))

    @service.handler(once=store)
    def sold(event: Sold) -> None:
        seen.append(event.item)

    async def story() -> None:
        await store.create_tables()
        async with eventkit.connect("memory") as bus, bus.run(service):
            for _ in range(2):
                await bus.publish(Sold(item="tea"), id="the-same")
            await bus.publish(Sold(item="jam"))
            async with asyncio.timeout(PATIENCE):
                while "jam" not in seen:
                    await asyncio.sleep(0.01)

    asyncio.run(story())
    assert seen == ["tea", "jam"], seen


def prometheus() -> None:
    from prometheus_client import generate_latest

    in_memory(EVENTKIT_METRICS="prometheus")
    assert b"eventkit_" in generate_latest()


def otel() -> None:
    in_memory(EVENTKIT_METRICS="otel", EVENTKIT_TRACING="otel")


def starlette() -> None:
    from shop import service  # type: ignore[import-not-found]
    from starlette.applications import Starlette

    import eventkit.starlette

    app = Starlette(routes=eventkit.starlette.routes(), lifespan=eventkit.starlette.lifespan(service))
    assert asyncio.run(status(app, "/health/ready")) == 200


def fastapi() -> None:
    from fastapi import FastAPI
    from shop import service

    import eventkit.fastapi

    app = FastAPI(lifespan=eventkit.fastapi.lifespan(service))
    app.include_router(eventkit.fastapi.router())
    assert asyncio.run(status(app, "/health/ready")) == 200


def ui() -> None:
    with program("ui", "shop:service", "--run", "--port", "0") as lines:
        address = wait_for(lines, "http://").split()[0]
        with urllib.request.urlopen(address, timeout=PATIENCE) as page:
            assert b"eventkit" in page.read()


def in_memory(**environment: str) -> None:
    from shop import Sold, service

    import eventkit

    async def story() -> None:
        async with eventkit.connect("memory") as bus, bus.run(service):
            await bus.publish(Sold(item="tea"))

    os.environ.update(environment)
    try:
        asyncio.run(story())
    finally:
        for name in environment:
            del os.environ[name]


async def status(app: Any, path: str) -> int:
    """What a GET is answered with while the app's lifespan is open: no client of HTTP is part of the extra."""
    asked: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    told: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    state: dict[str, Any] = {}
    lifespan = asyncio.create_task(app({"type": "lifespan", "state": state}, asked.get, told.put))
    await asked.put({"type": "lifespan.startup"})
    assert (await told.get())["type"] == "lifespan.startup.complete"
    answers: list[MutableMapping[str, Any]] = []

    async def answer(message: MutableMapping[str, Any]) -> None:
        answers.append(message)

    async def no_body() -> MutableMapping[str, Any]:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "state": state}
    await app({**scope, "http_version": "1.1", "scheme": "http", "app": app}, no_body, answer)
    await asked.put({"type": "lifespan.shutdown"})
    await lifespan
    return int(answers[0]["status"])


PROGRAM = str(Path(sys.executable).with_name("eventkit"))


def command(*words: str) -> None:
    subprocess.run([PROGRAM, *words], check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)


@contextmanager
def program(*words: str, **environment: str) -> Iterator[Iterator[str]]:
    """The lines of one that runs, until SIGTERM, which is to end it well."""
    running = subprocess.Popen(
        [PROGRAM, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    assert running.stdout is not None
    signal.alarm(int(PATIENCE))
    try:
        yield iter(running.stdout)
        running.terminate()
        running.stdout.read()
        assert running.wait(PATIENCE) == 0, f"{words} ended with {running.returncode}"
    finally:
        signal.alarm(0)
        running.kill()
        running.wait()


def wait_for(lines: Iterator[str], wanted: str) -> str:
    said = []
    for line in lines:
        said.append(line)
        if wanted in line:
            return line
    raise AssertionError(f"it never said {wanted!r}, but: {''.join(said)}")


PROOFS: dict[str, Callable[[], None]] = {
    "docs": docs,
    "speed": speed,
    "reload": reload,
    "sql": sql,
    "prometheus": prometheus,
    "starlette": starlette,
    "fastapi": fastapi,
    "otel": otel,
    "ui": ui,
}


def main(extra: str) -> None:
    Path("shop.py").write_text(SHOP)
    sys.path.insert(0, ".")
    names = BROKERS if extra == "all" else (extra,)
    brokers = [name for name in names if name in BROKERS]
    proofs = [docs, sql, ui] if extra == "all" else [PROOFS[extra]] if extra in PROOFS else []
    assert brokers or proofs, f"say here what {extra} is for"
    nothing_is_imported_before_it_is_needed()
    others_say_how_to_install(*brokers)
    for name in brokers:
        broker(name)
    for proof in proofs:
        proof()
    command("--help")
    print(f"{extra}: what it is for works ({', '.join([*brokers, *(proof.__name__ for proof in proofs)])})")


if __name__ == "__main__":
    for variable in [name for name in os.environ if name.startswith("EVENTKIT_")]:
        if not variable.startswith("EVENTKIT_TEST_"):
            del os.environ[variable]
    main(sys.argv[1])
