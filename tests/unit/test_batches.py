"""Batches as they are declared, and in the harness."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from eventkit import (
    Batch,
    Command,
    Context,
    DeclarationError,
    Delivery,
    Event,
    PartialFailure,
    Reject,
    Retry,
    Router,
    Service,
    Topic,
    Undeclared,
)
from eventkit.service import CallNext
from eventkit.testing import run


class Read(Event, topic="meters", key="meter"):
    meter: str
    number: int = 0


class Reset(Event, topic="meters", key="meter"):
    meter: str


class Stored(Event, topic="stored"):
    meter: str


class Sum(Command[int], service="adding"):
    numbers: list[int]


WAIT = Batch(size=10, wait=timedelta(seconds=30))


def _no_batch() -> None:
    @Router().handler  # type: ignore[type-var]
    async def store(events: list[Read]) -> None: ...


def _no_list() -> None:
    @Router().handler(batch=WAIT)  # type: ignore[arg-type]
    async def store(event: Read) -> None: ...


def _one_context() -> None:
    @Router().handler(batch=WAIT)
    async def store(events: list[Read], context: Context) -> None: ...


def _many_contexts() -> None:
    @Router().handler
    async def store(event: Read, contexts: list[Context]) -> None: ...


def _one_reply() -> None:
    @Router().handler(batch=WAIT)
    async def add(commands: list[Sum]) -> int: ...  # type: ignore[empty-body]


def _list_of_what() -> None:
    @Router().handler(batch=WAIT)  # type: ignore[type-var]
    async def store(events: list[int]) -> None: ...


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (_no_batch, r"store: an annotation of list\[Read\] takes batches; say which: handler\(batch=Batch\("),
        (_no_list, r"store: batch= goes with a list as annotation, such as \(events: list\[Read\]\)"),
        (_one_context, r"store: parameter 'context' should be annotated list\[Context\], one for each message"),
        (_many_contexts, "store: parameter 'contexts' should be annotated Context"),
        (_one_reply, r"add: Sum promises a reply of list.*, but the handler returns int"),
        (_list_of_what, "store: its first parameter 'events' is annotated int"),
        (lambda: Batch(size=0), r"Batch\(size=0\): a whole number from 1 to 1,000"),
        (lambda: Batch(size=1_001), r"Batch\(size=1001\)"),
        (lambda: Batch(wait=0.5), r"Batch\(wait=0.5\): a timedelta between zero and 60 seconds"),  # type: ignore[arg-type]
        (lambda: Batch(wait=timedelta(minutes=2)), r"between zero and 60 seconds"),
    ],
)
def test_a_wrong_declaration_names_the_handler_and_the_mend(declare: Callable[[], object], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        declare()


def test_partial_failure_takes_errors() -> None:
    for wrong in ({}, {0: "an error"}):
        with pytest.raises(TypeError, match="PartialFailure takes the errors"):
            PartialFailure(wrong)  # type: ignore[arg-type]


def handled(service: Service, *events: Event) -> Any:
    """The harness, after these events and all that came of them."""

    async def main() -> Any:
        async with run(service) as harness:
            for event in events:
                await harness.publish(event)
            await harness.idle()
            return harness

    return asyncio.run(main())


def test_the_virtual_clock_fills_a_batch() -> None:
    """Thirty seconds of waiting pass at once."""
    service, sizes = Service("storing"), list[int]()

    @service.handler(batch=WAIT)
    async def store(events: list[Read]) -> list[Stored]:
        sizes.append(len(events))
        return [Stored(meter=event.meter) for event in events]

    harness = handled(service, *(Read(meter=str(number)) for number in range(13)))
    assert sizes == [10, 3]
    assert harness.published(Stored) == [Stored(meter=str(number)) for number in range(13)]
    assert len(harness.handled(Read)) == 13


def test_a_plain_function_with_dependencies_and_middleware() -> None:
    around: list[str] = []

    async def timed(delivery: Delivery, call_next: CallNext) -> object:
        around.append(delivery.message.key or "")
        return await call_next(delivery)

    service, seen = Service("storing", middleware=[timed], timeout=timedelta(seconds=5)), list[Any]()

    @service.handler(batch=WAIT)
    def store(events: list[Read | Reset], contexts: list[Context]) -> None:
        seen.append([(type(event).__name__, context.key) for event, context in zip(events, contexts, strict=True)])
        contexts[1].publish(Stored(meter="of the second"))

    harness = handled(service, Read(meter="a"), Reset(meter="a"), Read(meter="b"))
    assert seen == [[("Read", "a"), ("Reset", "a"), ("Read", "b")]]
    assert around == ["a"], "once around the batch, with its first message"
    assert harness.published(Stored) == [Stored(meter="of the second")]


def test_all_events_of_a_topic() -> None:
    service, seen = Service("audit"), list[str]()

    @service.handler(topic=Topic("meters"), batch=WAIT)
    async def note(events: list[Event]) -> None:
        seen.extend(type(event).__name__ for event in events)
        assert not any(isinstance(event, Undeclared) for event in events)

    handled(service, Read(meter="a"), Reset(meter="a"))
    assert seen == ["Read", "Reset"]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda: [Stored(meter="a")], "returned 1 results for a batch of 2: return a list with what each"),
        (lambda: Stored(meter="a"), "returned Stored for a batch of 2"),
    ],
)
def test_a_wrong_result_is_said(result: Callable[[], Any], said: str) -> None:
    service = Service("storing")

    @service.handler(batch=WAIT)
    async def store(events: list[Read]) -> Any:
        return result()

    letters = handled(service, Read(meter="a"), Read(meter="b")).dead_letters()
    assert [letter.reason.value for letter in letters] == ["unsendable", "unsendable"]
    assert said in str(letters[0].error)


def test_one_that_cannot_be_sent_fails_its_own_parent_alone() -> None:
    service = Service("storing")

    @service.handler(batch=WAIT)
    async def store(events: list[Read]) -> list[Any]:
        return [7 if event.meter == "b" else Stored(meter=event.meter) for event in events]

    harness = handled(service, *(Read(meter=meter) for meter in "abc"))
    (letter,) = harness.dead_letters()
    assert (letter.message.key, letter.reason.value) == ("b", "unsendable")
    assert harness.published(Stored) == [Stored(meter="a"), Stored(meter="c")]


def test_an_index_that_is_none_fails_the_batch() -> None:
    service = Service("storing", retry=Retry(attempts=1))

    @service.handler(batch=WAIT)
    async def store(events: list[Read]) -> None:
        raise PartialFailure({5: LookupError("what?")})

    letters = handled(service, Read(meter="a"), Read(meter="b")).dead_letters()
    assert [str(letter.error) for letter in letters] == [
        "PartialFailure names message 5 of a batch of 2, counted from 0"
    ] * 2


def test_a_rejected_batch_of_commands() -> None:
    service = Service("adding")

    @service.handler(batch=Batch(size=5, wait=timedelta(0)))
    async def add(commands: list[Sum]) -> list[int]:
        raise Reject("closed today")

    async def main() -> list[str]:
        async with run(service) as harness:
            await harness.send(Sum(numbers=[1]))
            await harness.send(Sum(numbers=[2]))
            await harness.idle()
            return harness.rejected()

    assert asyncio.run(main()) == ["closed today", "closed today"]
