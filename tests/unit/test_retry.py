"""Retry: whether, and when again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from eventkit import DeclarationError, GiveUp, Retry, RetryLater

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"attempts": 0}, r"Retry\(attempts=0\): 1 is the least"),
        ({"attempts": 1.5}, r"Retry\(attempts=1.5\)"),
        ({"first_delay": -SECOND}, "delays lie between zero and 24 hours"),
        ({"first_delay": timedelta(hours=24, seconds=1)}, "delays lie between zero and 24 hours"),
        ({"max_delay": timedelta(days=2)}, "delays lie between zero and 24 hours"),
        ({"first_delay": 1}, "are a timedelta, such as"),
        ({"factor": 0.5}, "factor is at least 1"),
        ({"factor": float("nan")}, "factor is at least 1"),
        ({"factor": float("inf")}, "factor is at least 1"),
        ({"jitter": 1.0}, "jitter at least 0 and below 1"),
        ({"jitter": -0.1}, "jitter at least 0 and below 1"),
        ({"never": [ValueError]}, "give a tuple of exception classes"),
        ({"never": ValueError}, "give a tuple of exception classes"),
        ({"never": (ValueError, "KeyError")}, "give a tuple of exception classes"),
        ({"in_order": True, "attempts": 20}, r"a key waiting for \d+ s, 60 s is the most; lower attempts"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        Retry(**arguments)


def test_only_so_many_attempts() -> None:
    retry = Retry(attempts=3)
    assert [retry.allows(attempt, ValueError()) for attempt in (1, 2, 3, 4)] == [True, True, False, False]
    assert not Retry(attempts=1).allows(1, ValueError())


def test_some_errors_are_never_tried_again() -> None:
    retry = Retry(never=(LookupError,))
    assert retry.allows(1, ValueError())
    assert not retry.allows(1, KeyError())  # a LookupError
    assert not retry.allows(1, GiveUp("no use"))


def test_delays_grow_up_to_the_longest() -> None:
    retry = Retry(attempts=9, first_delay=SECOND, factor=3, max_delay=timedelta(seconds=20), jitter=0)
    assert [retry.delay(attempt).total_seconds() for attempt in range(1, 6)] == [1, 3, 9, 20, 20]
    assert retry.delay(100_000) == timedelta(seconds=20)
    assert Retry(first_delay=timedelta(0), jitter=0.5).delay(7) == timedelta(0)
    assert Retry(first_delay=timedelta(hours=1), max_delay=SECOND, jitter=0).delay(1) == SECOND


def test_jitter_spreads_both_ways_and_no_further() -> None:
    retry = Retry(first_delay=timedelta(seconds=10), jitter=0.2)
    delays = [retry.delay(1).total_seconds() for _ in range(500)]
    assert 8 <= min(delays) < 9
    assert 11 < max(delays) <= 12


def test_in_order_adds_up_all_waits() -> None:
    Retry(in_order=True, attempts=7, first_delay=timedelta(seconds=10), factor=1)  # six waits: 60 s
    with pytest.raises(DeclarationError, match="for 70 s"):
        Retry(in_order=True, attempts=8, first_delay=timedelta(seconds=10), factor=1)


def test_a_delay_that_the_handler_names_takes_the_place_of_ours() -> None:
    retry = Retry(attempts=3, first_delay=SECOND, max_delay=SECOND, jitter=0.5)
    assert retry.allows(1, RetryLater(SECOND))
    assert not retry.allows(3, RetryLater(SECOND)), "it is a failure like any other"
    assert retry.delay(1, RetryLater(timedelta(hours=2))) == timedelta(hours=2)
    assert retry.delay(2, RetryLater(timedelta(0))) == timedelta(0)
    assert retry.delay(1, RetryLater(timedelta(days=9))) == timedelta(hours=24)
    assert retry.delay(1, ValueError()) <= timedelta(seconds=1.5)
    in_order = Retry(in_order=True, attempts=4)
    assert in_order.delay(1, RetryLater(timedelta(hours=2))) == timedelta(seconds=20)
    assert in_order.delay(1, RetryLater(SECOND)) == SECOND


@pytest.mark.parametrize("delay", [-SECOND, 30, None])
def test_a_delay_is_a_timedelta(delay: Any) -> None:
    with pytest.raises(TypeError, match="as a timedelta of zero or more"):
        RetryLater(delay)
