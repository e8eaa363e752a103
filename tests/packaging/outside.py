"""An installed wheel is typed for its users: their checkers accept right uses and find wrong ones.

    python outside.py THE-PYTHON-THAT-HAS-THE-WHEEL mypy pyright

Run where no source tree can stand in for the wheel. The checkers may be installed elsewhere than the wheel.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = """\
from datetime import timedelta

import eventkit
from eventkit import Command, Context, Event, Retry, Service
from eventkit.testing import run
from eventkit_redis import RedisAdapter


class Placed(Event, topic="orders", key="number"):
    number: int


class Count(Command[int], service="shop"):
    pass


service = Service("shop", retry=Retry(attempts=3))


@service.handler
async def placed(event: Placed, context: Context) -> None:
    context.publish(Placed(number=event.number + 1))
    context.send(event)  # wrong
    event.nonsense  # wrong


@service.handles(Count)
async def count(command: Count) -> int:
    return 1


@service.handles(Count)  # wrong
async def count_in_words(command: Count) -> str:
    return "one"


async def main() -> None:
    async with eventkit.connect("memory") as bus, bus.run(service):
        await bus.publish(Placed(number=1))
        await bus.publish(Placed(number="one"))  # wrong
        await bus.publish(Count())  # wrong
        found: int = await bus.request(Count(), timeout=timedelta(seconds=1))
        text: str = await bus.request(Count())  # wrong
        print(found, text)
    async with run(service) as t:
        await t.publish(Placed(number=1))
        t.no_such_method()  # wrong


print(RedisAdapter.name, RedisAdapter.no_such_name)  # wrong
"""
WRONG = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")}


def mypy(python: str, file: Path) -> set[int]:
    """The lines that it refuses."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-incremental"]
    done = _run([*command, "--python-executable", python, file.name], file.parent)
    lines = done.stdout.splitlines()
    assert all(line.startswith(f"{file.name}:") for line in lines if ": error:" in line), done.stdout + done.stderr
    return {int(line.split(":")[1]) for line in lines if ": error:" in line}


def pyright(python: str, file: Path) -> set[int]:
    """The lines that it refuses."""
    everywhere = {"include": [file.name], "exclude": []}  # by itself it looks into no folder below one like .nox
    file.with_name("pyrightconfig.json").write_text(json.dumps(everywhere), encoding="utf-8")
    done = _run([sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", python, "-p", "."], file.parent)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {item["range"]["start"]["line"] + 1 for item in found if item["severity"] == "error"}


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=folder)


def main(python: str, *checkers: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "program.py")
        file.write_text(PROGRAM, encoding="utf-8")
        for name in checkers:
            found = {"mypy": mypy, "pyright": pyright}[name](python, file)
            assert found == WRONG, f"{name} refuses the lines {sorted(found)} of the program; wrong are {sorted(WRONG)}"
            print(f"{name}: {len(found)} wrong uses found, and no others", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
