"""Breaks of what a stop leaves behind, or a start that was given up; each is shown on its own broker."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_RABBIT, _KAFKA = "adapters/eventkit_rabbit", "adapters/eventkit_kafka"
_STOPS = "tests/adapters/test_rabbit_stop.py"

STOPPING = (
    Mutant(
        "rabbit: a stop does not write its settlements",
        f"{_RABBIT}/consume.py",
        "            self._subscription.give_up()\n            self._write(session)\n            try:\n",
        "            self._subscription.give_up()\n            try:\n",
        f"{_STOPS}::test_what_is_settled_right_before_a_stop_is_written[all settled]",
        "rabbit",
    ),
    Mutant(
        "rabbit: cut off what is under way when its time is over",
        f"{_RABBIT}/wire.py",
        "    return await asyncio.shield(task)\n",
        "    return await task\n",
        f"{_STOPS}::test_a_flush_that_runs_out_of_time_leaves_the_channel_to_what_follows",
        "rabbit",
    ),
    Mutant(
        "rabbit: a stop that runs out of time leaves its channel open",
        f"{_RABBIT}/consume.py",
        "                self._closing = asyncio.create_task(session.leave())\n",
        "                pass\n",
        f"{_STOPS}::test_a_stop_that_runs_out_of_time_gives_back_what_is_held_and_leaves_others_alone",
        "rabbit",
    ),
    Mutant(
        "rabbit: a stop waits for copies as long as they take",
        f"{_RABBIT}/consume.py",
        "            async with asyncio.timeout_at(end):\n                self._move()\n",
        "            async with asyncio.timeout_at(end + 600.0):\n                self._move()\n",
        "tests/faults/test_stop_unconfirmed.py::test_a_stop_ends_in_time_and_loses_nothing[silent_delay_queue]",
        "rabbit",
    ),
    Mutant(
        "rabbit: finish what could not be moved",
        f"{_RABBIT}/consume.py",
        "            if error is None:\n                session.tags.done(tag)\n",
        "            if error is None or settles:\n                session.tags.done(tag)\n",
        "tests/adapters/test_rabbit.py::test_a_failed_move_keeps_the_delivery",
        "rabbit",
    ),
    Mutant(
        "kafka: cut off a start at whatever moment",
        f"{_KAFKA}/clients.py",
        "        await asyncio.shield(starting)\n",
        "        await starting\n",
        "tests/adapters/test_kafka_clients.py::test_a_start_that_is_given_up_comes_to_its_end",
        "kafka",
    ),
)
"""By broker."""
