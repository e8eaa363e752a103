"""Breaks of what is done where a broker has lost something, or does not take it."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_KAFKA = "adapters/eventkit_kafka"
_CUT_OFF = "tests/adapters/test_kafka_cut_off.py"

LOSSES = (
    Mutant(
        "drop what cannot be given back",
        "eventkit/consuming.py",
        "            self._consumer.settle(delivery, self._outcomes.rescued(delivery))\n",
        "            pass\n",
        "tests/unit/test_stuck.py::test_what_is_given_back_and_is_no_longer_there_goes_to_the_retry_address",
        "memory",
    ),
    Mutant(
        "redis: what cannot be given back is not told",
        "adapters/eventkit_redis/settle.py",
        "            self._receive.unsettled(delivery, RELEASE, LostMessage(",
        "            repr((delivery, RELEASE, LostMessage)) if True else print((",
        "tests/adapters/test_redis.py::test_what_redis_has_lost_cannot_be_given_back_and_the_core_is_told",
        "redis",
    ),
    Mutant(
        "kafka: who joins again runs what waits before one that runs",
        f"{_KAFKA}/consume.py",
        "place(delivery)[0] in gone, None)\n",
        "place(delivery)[0] in gone, lambda _: False)\n",
        "tests/adapters/test_kafka_membership.py"
        "::test_what_has_not_begun_where_reading_fails_is_dropped_though_one_behind_it_runs",
        "kafka",
    ),
    Mutant(
        "kafka: what was settled in another log hides new messages",
        f"{_KAFKA}/membership.py",
        "            mark, start = None, begin\n",
        "            start = begin\n",
        f"{_CUT_OFF}::test_what_was_settled_in_a_log_that_is_gone_hides_nothing_of_the_next",
        "kafka",
    ),
    Mutant(
        "kafka: what was settled in a log that loses its end hides new messages",
        f"{_KAFKA}/membership.py",
        "        self._begin_anew(tp, begin, end)\n",
        "",
        f"{_CUT_OFF}::test_a_log_that_is_cut_under_its_reader_is_read_from_its_beginning",
        "kafka",
    ),
    Mutant(
        "kafka: the mark of a log that has lost its end is trusted while it is within it",
        f"{_KAFKA}/membership.py",
        "(last := reached(*mark)) > end:",
        "(last := mark.offset) > end:",
        f"{_CUT_OFF}::test_what_was_settled_past_the_end_of_a_log_that_was_cut_meanwhile_hides_nothing",
        "kafka",
    ),
    Mutant(
        "kafka: a reader that has given up commits what it had in hand as settled",
        f"{_KAFKA}/commits.py",
        " and ours.get(tracker.tp) is tracker]",
        " and ours is not None]",
        "tests/adapters/test_kafka_marks.py"
        "::test_what_is_in_hand_when_a_stop_cannot_commit_during_a_rebalance_comes_again",
        "kafka",
    ),
    Mutant(
        "kafka: what is lent when reading fails is dropped",
        f"{_KAFKA}/consume.py",
        "                self._lending.settle(delivery, RELEASE)\n",
        "                repr(delivery)\n",
        f"{_CUT_OFF}::test_what_was_read_of_a_log_just_before_it_was_lost_is_not_dropped_where_reading_ends",
        "kafka",
    ),
    Mutant(
        "rabbit: what is given back of a queue that was deleted is dropped",
        "adapters/eventkit_rabbit/consume.py",
        "                self._receive.unsettled(delivery, how, lost)\n",
        "                repr(lost)\n",
        "tests/adapters/test_rabbit.py::test_what_is_given_back_of_a_queue_that_was_deleted_is_not_dropped",
        "rabbit",
    ),
    Mutant(
        "kafka: what is nowhere else is taken away",
        f"{_KAFKA}/membership.py",
        "if ends.get(tracker.tp, 0) < wanted}",
        "if ends.get(tracker.tp, 0) < 0}",
        f"{_CUT_OFF}::test_what_is_in_hand_of_a_topic_that_was_deleted_is_not_dropped",
        "kafka",
    ),
    Mutant(
        "kafka: what is read while it is asked where a log ends makes it look cut off",
        f"{_KAFKA}/membership.py",
        "if ends.get(tracker.tp, 0) < wanted}",
        "if ends.get(tracker.tp, 0) < (tracker.next or 0)}",
        f"{_CUT_OFF}::test_what_is_read_while_kafka_says_where_a_log_ends_is_not_past_its_end",
        "kafka",
    ),
    Mutant(
        "kafka: where a running group begins is known to one process",
        f"{_KAFKA}/beginnings.py",
        "            await self._note_starts(group.name, later)\n",
        "            pass\n",
        "tests/adapters/test_kafka_beginnings.py::"
        "test_a_running_group_begins_with_a_new_topic_where_the_first_of_the_next_release_was_told_to",
        "kafka",
    ),
    Mutant(
        "a rebalance waits for a circuit",
        "eventkit/consuming.py",
        "            finished |= {key for key, _ in mine[: kept[-1]]} - self._asleep()\n",
        "            finished |= {key for key, _ in mine[: kept[-1]]}\n",
        "tests/adapters/test_kafka_membership.py::test_partitions_go_to_others_without_waiting_for_an_open_circuit",
        "kafka",
    ),
    Mutant(
        "kafka: what was read just before partitions go is delivered after it",
        f"{_KAFKA}/membership.py",
        "        self.revocations += 1  # what was read",
        "        pass  # what was read",
        "tests/adapters/test_kafka_membership.py"
        "::test_what_was_read_just_before_partitions_are_taken_away_is_not_delivered_after_it",
        "kafka",
    ),
    Mutant(
        "the outbox: what waits behind one that failed goes past it",
        "eventkit/sql/relay.py",
        "                late.add(lane)\n                self._aside.wait_behind(lane, position)\n",
        "                free.append((position, message))\n",
        "tests/once/test_outbox.py::test_a_key_keeps_its_order_while_the_broker_fails",
        "memory",
    ),
)
