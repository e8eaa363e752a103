"""Kafka's watermark against a model: what is settled, what was committed, and readers that die between the two."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eventkit.adapter import Address

progress = pytest.importorskip("eventkit_kafka.progress")
lives = pytest.importorskip("eventkit_kafka.lives")

TP = type("TP", (), {"partition": 0})()
TOPIC = Address("topic", "t")
GAP = 7
"""Each such offset holds nothing: a marker of a transaction, or what was compacted away."""


class WatermarkMachine(RuleBasedStateMachine):
    """One partition, read by one reader after the other, each of which goes on from the last commit."""

    def __init__(self) -> None:
        super().__init__()
        self.committed: tuple[int, str] = (0, "")
        self.settled: set[int] = set()
        """By anyone, ever."""
        self.written: set[int] = set()
        """What the last commit says is settled."""
        self.known: set[int] = set()
        """What its reader knows to be."""
        self.in_hand: set[int] = set()
        self.deaths = 0
        self.begin()

    def begin(self) -> None:
        """A reader gets the partition, as Membership gives it."""
        watermark, metadata = self.committed
        read, settled = progress.decode(watermark, metadata)
        living, deaths = lives.read(watermark, metadata)
        if living:
            deaths = [*deaths, read]
        self.tracker = progress.Tracker(TP, TOPIC, settled, deaths)
        self.at = watermark
        self.in_hand = set()
        self.known = set(self.written)

    @rule(count=st.integers(1, 5))
    def read(self, count: int) -> None:
        tracker = self.tracker
        if self.at % GAP == 0:
            self.nothing_at(self.at)
            self.at += 1
        for offset in range(self.at, self.at + count):
            if offset % GAP == 0:
                self.nothing_at(offset)
            elif tracker.skips(offset):
                assert offset in self.settled, f"{offset} is passed over, and was never settled"
            else:
                assert offset not in self.written, f"{offset} comes again, though its settlement was written down"
                tracker.pending[offset] = progress.LENT
                self.in_hand.add(offset)
        self.at += count
        tracker.next = self.at

    def nothing_at(self, offset: int) -> None:
        self.settled.add(offset)
        self.known.add(offset)

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.in_hand)))
        del self.tracker.pending[offset]
        self.in_hand.remove(offset)
        self.settled.add(offset)
        self.known.add(offset)

    @rule(room=st.sampled_from([progress.METADATA, progress.METADATA, 12, 0]))
    def commit(self, room: int) -> None:
        mark = self.tracker.mark(room)
        if mark is None:
            return
        assert len(mark[1]) <= room
        whole = self.tracker.complete(room)
        self.committed = mark
        if whole and room == progress.METADATA:
            self.written = set(self.known)
        else:
            self.written = {offset for offset in self.known if offset < mark[0]}

    @rule()
    def die(self) -> None:
        self.begin()

    @rule()
    def leave(self) -> None:
        """In order: what is in hand is finished by the next one."""
        self.tracker.open = False
        self.commit(progress.METADATA)
        self.begin()

    @invariant()
    def nothing_unsettled_is_behind_the_mark(self) -> None:
        watermark, metadata = self.committed
        _, ranges = progress.decode(watermark, metadata)
        passed = set(range(watermark)) | {offset for start, stop in ranges for offset in range(start, stop)}
        assert passed <= self.settled, f"{sorted(passed - self.settled)} would be lost"

    @invariant()
    def what_is_in_hand_is_pending(self) -> None:
        assert set(self.tracker.pending) == self.in_hand
        assert self.tracker.lent() == len(self.in_hand)
        if self.tracker.next is not None and self.in_hand:
            assert all(self.tracker.count(offset) >= 1 for offset in self.in_hand)


TestWatermark = WatermarkMachine.TestCase
TestWatermark.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
