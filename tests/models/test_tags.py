"""RabbitMQ's delivery tags against a model of the broker: frames settle what was finished, and nothing else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

tags = pytest.importorskip("eventkit_rabbit.tags")

ACK, NACK = (60 << 16) | 80, (60 << 16) | 120


class TagsMachine(RuleBasedStateMachine):
    """Deliveries come, are settled in any order, twice, or while they are moved; frames are written now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.tags = tags.Tags()
        self.top = 0
        self.unsettled: set[int] = set()
        """Ours to settle."""
        self.moving: set[int] = set()
        self.finished: set[int] = set()
        self.given_back: set[int] = set()
        self.brokers: set[int] = set()
        """What the broker waits for."""

    @rule(count=st.integers(1, 4))
    def arrive(self, count: int) -> None:
        for _ in range(count):
            self.top += 1
            self.tags.arrived(self.top)
            self.unsettled.add(self.top)
            self.brokers.add(self.top)

    @precondition(lambda self: self.unsettled)
    @rule(data=st.data(), how=st.sampled_from(["done", "done", "release", "move"]))
    def settle(self, data: st.DataObject, how: str) -> None:
        tag = data.draw(st.sampled_from(sorted(self.unsettled)))
        self.unsettled.remove(tag)
        if how == "done":
            self.tags.done(tag)
            self.finished.add(tag)
        elif how == "release":
            self.tags.release(tag)
            self.given_back.add(tag)
        else:
            self.tags.begin(tag)
            self.moving.add(tag)

    @precondition(lambda self: self.moving)
    @rule(data=st.data(), confirmed=st.booleans())
    def answer(self, data: st.DataObject, confirmed: bool) -> None:
        tag = data.draw(st.sampled_from(sorted(self.moving)))
        self.moving.remove(tag)
        if confirmed:
            self.tags.done(tag)
            self.finished.add(tag)
        else:
            self.tags.abandon(tag)
            self.unsettled.add(tag)

    @rule()
    def write(self) -> None:
        for frame in self.tags.write(1):
            method, tag, bits = struct.unpack_from(">IQB", frame, 7)
            multiple = bits & 1 == 1
            settled = {one for one in self.brokers if one <= tag} if multiple else {tag}
            assert tag in self.brokers, "a tag that the broker does not know: it would close the channel"
            assert settled <= (self.finished if method == ACK else self.given_back), "what nobody has finished"
            assert method in (ACK, NACK)
            self.brokers -= settled
        assert not self.brokers & (self.finished | self.given_back), "a settlement was left unwritten"

    @invariant()
    def only_what_is_unsettled_is_held(self) -> None:
        assert {tag for tag in range(self.top + 2) if self.tags.holds(tag)} == self.unsettled


TestTags = TagsMachine.TestCase
TestTags.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
