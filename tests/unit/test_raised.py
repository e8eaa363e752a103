"""Where in the program's own code a failure came from, as the log says it."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

import eventkit.testing
from eventkit import Command, CommandFailed, CommandRejected, Context, Event, Reject, Retry, Service
from eventkit.raised import place


class Weighed(Event, topic="weighed"):
    grams: int


class Weigh(Command[int], service="scales"):
    order: str


scales = Service("scales", retry=Retry(attempts=2))


@scales.handler
async def weighed(event: Weighed) -> None:
    json.loads("{")  # fails in a library; this is the line to look at


@scales.handler
async def weigh(command: Weigh) -> int:
    if command.order == "none":
        raise Reject("nothing to weigh")
    raise KeyError(command.order)


def _lines(of: str) -> list[int]:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, 1) if line.strip().startswith(of)]


def test_the_innermost_line_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="Expecting") as raised:
        json.loads("{")
    here = f"{Path(__file__).name}:{_lines('json.loads')[-1]}"
    monkeypatch.chdir(Path(__file__).parent)
    assert place(raised.value) == here
    monkeypatch.chdir(tmp_path)
    assert place(raised.value) == f"{Path(__file__).parent}/{here}"
    assert place(ValueError("never raised")) == ""


def test_to_await_what_only_collects_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    service = Service("eager", retry=Retry(attempts=1))

    @service.handler
    async def weighed(event: Weighed, context: Context) -> None:
        await context.publish(event)  # type: ignore[func-returns-value]

    async def story() -> None:
        async with eventkit.testing.run(service) as t:
            await t.publish(Weighed(grams=1))
            await t.idle()

    asyncio.run(story())
    (said,) = [record.getMessage() for record in caplog.records if "is a dead letter" in record.getMessage()]
    assert said.endswith(
        f"{_lines('await context.publish')[0]}: publish and send of a Context only collect; leave `await` out)"
    )


def test_each_failure_is_logged_with_its_line(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with eventkit.testing.run(scales) as t:
            await t.publish(Weighed(grams=1))
            await t.idle()

    with caplog.at_level(logging.INFO, "eventkit"):
        asyncio.run(story())
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2, said
    where = f"{Path(__file__).name}:{_lines('json.loads')[0]})"
    assert all(line.endswith(where) for line in said), said


def test_the_trace_of_a_request_says_whose_answer_it_was() -> None:
    async def story() -> None:
        async with eventkit.testing.run(scales) as t:
            for order, error in (("none", CommandRejected), ("7", CommandFailed)):
                with pytest.raises(error) as raised:
                    await t.request(Weigh(order=order))
                (note,) = raised.value.__notes__
                assert note.startswith("the answer of scales to Weigh (")

    asyncio.run(story())
