"""How many deliveries a group holds at once, against a clock that the test turns."""

from __future__ import annotations

from itertools import pairwise

import pytest

from eventkit.room import Room


class Group:
    """Handles what it holds at a steady rate; its broker always has more."""

    def __init__(self, least: int, rate: float, most: int = 1_000) -> None:
        self.room = Room(least, most)
        self.rate = rate
        self.now = 100.0
        self.settled = 0.0
        self.idle = 0.0
        """The part of the workers for which what is held has nothing to do."""
        self.changes: list[tuple[float, int]] = []
        self.room.begin(self.now, 0)

    def run(self, seconds: float, step: float = 0.1) -> int:
        """The size afterwards."""
        ends = self.now + seconds
        while self.now < ends - step / 2:
            self.now += step
            self.settled += self.rate * step
            held = self.room.size
            if self.room.look(self.now, int(self.settled), held, idle=self.idle):
                self.changes.append((self.now - 100.0, self.room.size))
        return self.room.size


def test_a_fast_group_has_all_its_room_in_a_moment() -> None:
    group = Group(least=32, rate=20_000)
    assert group.run(0.1, step=0.002) == 1_000
    assert [size for _, size in group.changes] == [128, 512, 1_000]


@pytest.mark.parametrize(("rate", "least", "most"), [(0.02, 1, 1), (0.5, 1, 2), (4.0, 2, 20), (40.0, 4, 200)])
def test_a_slow_group_holds_a_few_seconds_of_work(rate: float, least: int, most: int) -> None:
    group = Group(least=least, rate=rate)
    assert least <= group.run(300) <= most
    assert group.room.size * 5 >= most or group.room.size == least, "and no less than a second's"
    assert all(size <= most for _, size in group.changes)


def test_one_that_turns_slow_shrinks_and_grows_again() -> None:
    group = Group(least=10, rate=10_000)
    assert group.run(1) == 1_000
    group.rate = 4.0
    assert 15 <= group.run(6) <= 20
    group.rate = 0.0
    assert group.run(6) == 10, "its workers always have one each"
    group.rate = 10_000
    assert group.run(1) == 1_000


def test_it_shrinks_only_where_all_workers_are_busy_and_it_is_full() -> None:
    group = Group(least=10, rate=10_000)
    group.run(1)
    group.rate = 1.0
    group.idle = 0.1
    assert group.run(60) == 1_000
    group.idle = 0.0
    assert not any(group.room.look(group.now + at, int(group.settled), 500, idle=0.0) for at in range(60))


def test_it_grows_while_workers_have_nothing_to_do_and_then_does_not_shrink_at_once() -> None:
    group = Group(least=10, rate=1.0)
    group.idle = 0.9
    group.run(0.5)
    assert group.changes == [
        (pytest.approx(0.1), 40),
        (pytest.approx(0.2), 160),
        (pytest.approx(0.3), 640),
        (pytest.approx(0.4), 1_000),
    ]
    group.idle = 0.0
    assert group.run(50) == 1_000
    assert group.run(20) == 10


def test_where_nothing_runs_at_all_it_has_all_room_at_once() -> None:
    group = Group(least=10, rate=0.0)
    group.idle = 1.0
    assert group.run(0.1) == 1_000


def test_a_few_idle_workers_make_it_grow_less() -> None:
    group = Group(least=10, rate=1.0)
    group.idle = 0.1
    assert group.run(10) == 10
    group.idle = 0.3
    assert group.run(0.1) == 20


def test_each_change_is_by_half_at_least_or_to_the_least() -> None:
    group = Group(least=10, rate=100)
    for rate in (100, 130, 90, 70, 140, 60, 110, 500, 90):
        group.rate = rate
        group.run(7)
    sizes = [10, *(size for _, size in group.changes)]
    assert all(b >= 2 * a or b * 2 <= a + 1 or b == 10 for a, b in pairwise(sizes)), sizes


def test_a_lull_is_no_slowness() -> None:
    group = Group(least=10, rate=10_000)
    group.now += 3_600
    group.room.begin(group.now, 0)
    assert group.run(0.1, step=0.002) == 1_000


def test_instant_handlers_hold_nothing_between_two_batches() -> None:
    room, now = Room(32, 1_000), 100.0
    room.begin(now, 0)
    for batch in range(100):
        now += 0.001
        room.begin(now, batch * 8)
        room.look(now, (batch + 1) * 8, 0, idle=0.0)
    assert room.size == 1_000


def test_there_is_no_more_room_than_the_most() -> None:
    assert Room(5_000, 1_000).size == 1_000
