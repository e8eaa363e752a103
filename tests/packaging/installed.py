"""What an installed wheel is, checked in an environment that has it and nothing else of this project.

    python installed.py faststream_eventkit-0.1.0-py3-none-any.whl

Run where no source tree can stand in for the wheel.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

EXTRAS = ("kafka", "nats", "rabbit", "redis")
TOP = {"eventkit", *(f"eventkit_{extra}" for extra in EXTRAS)}
CLIENTS = ("aio_pika", "aiokafka", "faststream", "nats", "redis")


def main(wheel: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [Path(name) for name in archive.namelist()]
    top = {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")}
    assert top == TOP, f"the wheel puts {sorted(top)} beside other packages; it is to be {sorted(TOP)}"
    assert {name.parts[0] for name in names if name.name == "py.typed"} == TOP, "each package says that it is typed"

    import eventkit
    import eventkit.testing

    assert "site-packages" in str(eventkit.__file__), f"this is not the wheel, but {eventkit.__file__}"
    present = [client for client in CLIENTS if client in sys.modules]
    assert not present, f"`import eventkit` imports a broker's client: {present}"

    points = {point.name for point in importlib.metadata.entry_points(group="eventkit.adapters")}
    assert points == {"memory", *EXTRAS}, points
    for extra in EXTRAS:
        says_how_to_install(extra)
    instruments_say_how_to_install("EVENTKIT_TRACING", "otel")
    instruments_say_how_to_install("EVENTKIT_METRICS", "otel")
    asyncio.run(in_memory())

    program = Path(sys.executable).parent / "eventkit"
    told = subprocess.run([program, "run", "nowhere:service"], capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 2, told
    assert told.stderr == "eventkit: there is no module 'nowhere' here; it is looked for from the current folder\n", (
        told
    )
    told = subprocess.run([program, "new", "shop-service"], capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 0, told
    made = {str(path.relative_to("shop-service")) for path in Path("shop-service").rglob("*") if path.is_file()}
    assert {".env.example", ".github/workflows/ci.yml", "shop_service/service.py", "tests/test_service.py"} <= made, (
        made
    )


def says_how_to_install(extra: str) -> None:
    import eventkit

    said = "nothing: its client is here, without its extra"
    try:
        eventkit.connect(extra)
    except eventkit.AdapterNotFound as error:
        said = str(error)
    assert f"pip install 'faststream-eventkit[{extra}]'" in said, f"{extra}: {said}"


def instruments_say_how_to_install(variable: str, name: str) -> None:
    import eventkit

    said = f"nothing: what {name} needs is here, without its extra"
    os.environ[variable] = name
    try:
        eventkit.connect("memory")
    except eventkit.SettingsError as error:
        said = str(error)
    finally:
        del os.environ[variable]
    assert said.startswith(f"{variable}={name}: "), said
    assert f"pip install 'faststream-eventkit[{name}]'" in said, said


async def in_memory() -> None:
    import eventkit

    class Paid(eventkit.Event, topic="payments"):
        amount: int

    service = eventkit.Service("books")
    seen = asyncio.Event()

    @service.handler
    async def book(event: Paid) -> None:
        assert event == Paid(amount=7)
        seen.set()

    async with eventkit.connect("memory") as bus, bus.run(service):
        await bus.publish(Paid(amount=7))
        await asyncio.wait_for(seen.wait(), 10)


if __name__ == "__main__":
    main(sys.argv[1])
