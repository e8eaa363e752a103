"""Batching: one call of a handler for many messages, and what becomes of each of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from eventkit import headers as h
from eventkit.adapter import Settlement
from eventkit.context import Context
from eventkit.errors import InvalidMessage, PartialFailure
from eventkit.failures import Wait
from eventkit.gathering import Gathered, Item
from eventkit.handling import Call, make_context
from eventkit.lanes import take_back_cancellation
from eventkit.outcomes import Outcomes
from eventkit.outgoing import Sending, Unsendable


class BatchCall(Call):
    """As a call for one message; its content is the list of them, and there is a context for each.

    Middleware goes around it once, with the first message's delivery.
    """

    __slots__ = ("contexts",)

    def __init__(self, items: Sequence[Item]) -> None:
        first = items[0]
        super().__init__(first.entry, [item.content for item in items], first.delivery, first.attempt, first.deadline)
        self.contexts: list[Context] = []
        if not first.entry.plain:
            self.contexts = [make_context(i.entry, i.delivery, i.attempt, i.deadline, []) for i in items]

    def _context(self) -> Context:
        return self.contexts[0]

    def _for_handler(self, context: Context) -> object:
        return self.contexts


async def decide(outcomes: Outcomes, batch: Gathered) -> list[Settlement | Wait]:
    """Handle the batch; one answer for each of its messages."""
    if outcomes.telling.instruments is None:
        return await _decide(outcomes, batch.items)
    attempts = [item.as_attempt() for item in batch.items]
    handling = outcomes.telling.begin(attempts)
    try:
        return await _decide(outcomes, batch.items)
    finally:
        outcomes.telling.end(handling, attempts)


async def _decide(outcomes: Outcomes, items: Sequence[Item]) -> list[Settlement | Wait]:
    outcomes.telling.enter_batch([(item.delivery, item.attempt) for item in items])
    began = time.perf_counter()
    try:
        errors = await _call(outcomes, items)
    except asyncio.CancelledError as cancelled:
        if outcomes.aborting:
            raise
        take_back_cancellation()
        errors = _all(items, cancelled)
    if outcomes.telling.each:
        outcomes.telling.batch_took(items[0].entry, len(items), len(errors), time.perf_counter() - began)
    answers: list[Settlement | Wait] = []
    for place, item in enumerate(items):
        error = errors.get(place)
        if error is None:
            answers.append(outcomes.succeeded(item.entry, item.delivery, item.content, item.attempt))
        else:
            answers.append(await outcomes.failed(item, error))
    return answers


async def _call(outcomes: Outcomes, items: Sequence[Item]) -> dict[int, BaseException]:
    """The errors of those that failed, by their place; what the others send is sent."""
    call = BatchCall(items)
    errors: dict[int, BaseException] = {}
    results: list[object] = [None] * len(items)
    try:
        results = _of_each(items, await call.run())
    except PartialFailure as partial:
        errors, results = _named(items, partial)
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 whatever a handler raises is a failure of its messages
        return _all(items, error)
    sending: dict[int, Sending] = {}
    for place, item in enumerate(items):
        outgoing = call.contexts[place].outgoing if call.contexts else ()
        if place not in errors and (
            outgoing or results[place] is not None or h.REPLY_TO in item.delivery.message.headers
        ):
            sending[place] = Sending(item.entry, item.delivery, results[place], outgoing)
    if sending:
        errors |= await outcomes.emitter.succeeded_all(sending)
    return errors


def _of_each(items: Sequence[Item], result: object) -> list[object]:
    if result is None:
        return [None] * len(items)
    if isinstance(result, list | tuple) and len(result) == len(items):
        return list(result)
    shown = f"{len(result)} results" if isinstance(result, list | tuple) else type(result).__name__
    raise Unsendable(
        InvalidMessage(
            f"{items[0].entry.name} returned {shown} for a batch of {len(items)}: return a list with what each "
            "message's handling returns, in their order, or None"
        )
    )


def _named(items: Sequence[Item], partial: PartialFailure) -> tuple[dict[int, BaseException], list[object]]:
    results: list[object] = [None] * len(items)
    wrong = [index for index in partial.errors if index not in range(len(items))]
    if wrong:
        error = IndexError(f"PartialFailure names message {wrong[0]!r} of a batch of {len(items)}, counted from 0")
        error.__cause__ = partial
        return _all(items, error), results
    errors = dict(partial.errors)
    if partial.results is not None:
        try:
            results = _of_each(items, partial.results)
        except Unsendable as unsendable:
            errors = {**_all(items, unsendable), **errors}
    return errors, results


def _all(items: Sequence[Item], error: BaseException) -> dict[int, BaseException]:
    return dict.fromkeys(range(len(items)), error)
