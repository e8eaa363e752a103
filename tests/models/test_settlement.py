"""What becomes of messages, and when, against a model: each a script of outcomes, one for each attempt."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from eventkit import Command, Context, Event, GiveUp, Reject, Retry, RetryLater, Service, testing
from eventkit.clock import LONGEST, VirtualClock


class Scripted(Event, topic="scripted", key="key"):
    number: int
    key: str | None = None


class ScriptedCommand(Command, service="worker"):
    number: int
    key: str | None = None


class Never(Exception):
    """The policy never retries it."""


class Script(NamedTuple):
    """What the handler does on each attempt; past the end it succeeds."""

    steps: Sequence[str]
    command: bool
    key: str | None


steps = st.sampled_from(["fails", "fails", "later", "gives up", "never", "rejects", "cancelled", "exits"])
scripts = st.lists(
    st.builds(Script, st.lists(steps, max_size=5), st.booleans(), st.sampled_from([None, "a", "b"])),
    min_size=1,
    max_size=6,
)
policies = st.builds(
    Retry,
    attempts=st.integers(1, 4),
    first_delay=st.sampled_from([timedelta(0), timedelta(seconds=1), timedelta(hours=3)]),
    factor=st.sampled_from([1.0, 2.0, 10.0]),
    max_delay=st.sampled_from([timedelta(seconds=5), timedelta(hours=24)]),
    jitter=st.just(0.0),
    never=st.just((Never,)),
)
LATER = timedelta(minutes=7)


class Told(NamedTuple):
    """What is to become of one message."""

    attempts: int
    how: str
    times: list[timedelta]
    """When each attempt comes, after the first."""


def model(script: Script, policy: Retry) -> Told:
    """Without any of eventkit's own code."""
    at, times, attempt = timedelta(0), list[timedelta](), 0
    delay = policy.first_delay
    while True:
        attempt += 1
        times.append(at)
        step = script.steps[attempt - 1] if attempt <= len(script.steps) else "succeeds"
        if step == "succeeds":
            return Told(attempt, "handled", times)
        if step == "rejects" and script.command:
            return Told(attempt, "rejected", times)
        if step in ("gives up", "never", "rejects"):  # an event cannot be rejected
            return Told(attempt, "gave-up", times)
        if attempt == policy.attempts:
            return Told(attempt, "exhausted", times)
        at += LATER if step == "later" else min(delay, policy.max_delay)
        delay = min(delay * policy.factor, LONGEST)


def perform(step: str) -> None:
    if step == "cancelled":
        raise asyncio.CancelledError
    errors: dict[str, BaseException] = {
        "fails": RuntimeError("asked for"),
        "later": RetryLater(LATER),
        "gives up": GiveUp("asked for"),
        "never": Never(),
        "rejects": Reject("asked for"),
        "exits": SystemExit(1),
    }
    if step in errors:
        raise errors[step]


@settings(max_examples=80, deadline=None)
@given(scripts, policies)
def test_each_message_ends_as_its_script_says_and_when(told: list[Script], policy: Retry) -> None:
    service = Service("worker", retry=policy)
    times: dict[int, list[datetime]] = defaultdict(list)
    attempts: dict[int, list[int]] = defaultdict(list)

    async def main() -> None:
        async with testing.run(service) as t:

            def handle(number: int, attempt: int) -> None:
                times[number].append(t.now)
                attempts[number].append(attempt)
                script = told[number].steps
                perform(script[attempt - 1] if attempt <= len(script) else "succeeds")

            handlers.append(handle)
            for number, script in enumerate(told):
                if script.command:
                    await t.send(ScriptedCommand(number=number, key=script.key))
                else:
                    await t.publish(Scripted(number=number, key=script.key))
            await t.idle()
            letters = {letter.read(_class(letter.type)).number: letter for letter in t.dead_letters()}
            handled = {message.number for cls in (Scripted, ScriptedCommand) for message in t.handled(cls)}
            for number, script in enumerate(told):
                wanted = model(script, policy)
                assert attempts[number] == list(range(1, wanted.attempts + 1))
                assert [at - times[number][0] for at in times[number]] == wanted.times
                if wanted.how in ("gave-up", "exhausted"):
                    assert (letters[number].reason, letters[number].attempts) == (wanted.how, wanted.attempts)
                assert (number in letters) == (wanted.how in ("gave-up", "exhausted"))
                assert (number in handled) == (wanted.how == "handled")
            rejected = sum(model(script, policy).how == "rejected" for script in told)
            assert len(t.rejected()) == rejected

    handlers = []  # type: ignore[var-annotated]

    @service.handler
    async def scripted(event: Scripted, context: Context) -> None:
        handlers[0](event.number, context.attempt)

    @service.handler
    async def command(command: ScriptedCommand, context: Context) -> None:
        handlers[0](command.number, context.attempt)

    asyncio.run(main())


def _class(name: str) -> type[Scripted | ScriptedCommand]:
    return Scripted if name == "Scripted" else ScriptedCommand


@given(
    policies,
    st.floats(0, 0.99),
    st.integers(1, 60),
)
def test_a_delay_lies_within_its_jitter_and_never_shrinks(policy: Retry, jitter: float, attempt: int) -> None:
    exact = policy.delay(attempt)
    assert timedelta(0) <= exact <= policy.max_delay
    assert exact <= policy.delay(attempt + 1)
    loose = Retry(
        first_delay=policy.first_delay, factor=policy.factor, max_delay=policy.max_delay, jitter=jitter
    ).delay(attempt)
    assert abs(loose - exact) <= exact * jitter + timedelta(microseconds=2)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.booleans()), max_size=20), st.lists(st.floats(0, 1e6), max_size=10))
def test_the_virtual_clock_rings_each_timer_once_in_its_turn(
    timers: list[tuple[float, bool]], turns: list[float]
) -> None:
    clock = VirtualClock()
    start = clock.now()
    rung: list[tuple[datetime, int]] = []
    wanted = []
    for number, (delay, cancelled) in enumerate(timers):
        timer = clock.call_later(delay, lambda number=number: rung.append((clock.now(), number)))  # type: ignore[misc]
        if cancelled:
            timer.cancel()
        else:
            wanted.append((start + timedelta(seconds=delay), number))
    for turn in turns:
        clock.advance(start + timedelta(seconds=turn))
    reached = max([start, *(start + timedelta(seconds=turn) for turn in turns)])
    assert clock.now() == reached
    assert rung == sorted(one for one in wanted if turns and one[0] <= reached)
