"""Breaks of batches: shown in memory."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_GATHERING, _BATCHING = "eventkit/gathering.py", "eventkit/batching.py"

BATCHES = (
    Mutant(
        "a batch of one too many",
        _GATHERING,
        "        if alone or len(batch.items) >= rules.size:\n",
        "        if alone or len(batch.items) > rules.size:\n",
        "B1",
    ),
    Mutant(
        "a batch waits until it is full",
        _GATHERING,
        "self._clock.call_later(0 if self._hurry else rules.wait.total_seconds(), close)",
        "self._clock.call_later(0 if self._hurry else 3600.0, close)",
        "B1",
    ),
    Mutant(
        "a partial failure is a failure of all",
        _BATCHING,
        "        errors, results = _named(items, partial)\n",
        "        return _all(items, partial)\n",
        "B2",
    ),
    Mutant(
        "join a batch although the key has an earlier one elsewhere",
        _GATHERING,
        "        return None if self._open.get(entry.handler) is hold.batch else hold.gate\n",
        "        return None\n",
        "B3",
    ),
    Mutant(
        "all that a batch sends comes of its first message",
        _BATCHING,
        "            sending[place] = Sending(item.entry, item.delivery, results[place], outgoing)\n",
        "            sending[place] = Sending(item.entry, items[0].delivery, results[place], outgoing)\n",
        "B4",
    ),
    Mutant(
        "a message of a batch that failed sends all the same",
        _BATCHING,
        "        if place not in errors and (\n",
        "        if True and (\n",
        "B4",
    ),
    Mutant(
        "a last attempt is made among others",
        _GATHERING,
        "    return attempt > 1 and attempt >= entry.retry.attempts\n",
        "    return False\n",
        "B5",
    ),
    Mutant(
        "lose the results that come with a partial failure",
        _BATCHING,
        "            results = _of_each(items, partial.results)\n",
        "            _of_each(items, partial.results)\n",
        "B6",
    ),
    Mutant(
        "free the key of a message that waits to be tried again",
        "eventkit/consuming.py",
        "                self._started.discard(id(item.arrived))\n                assert self._gatherer is not None\n",
        "                self._started.discard(id(item.arrived))\n                assert self._gatherer is not None\n"
        "                self._gatherer.settled(item.arrived)\n",
        "B7",
    ),
    Mutant(
        "a stop waits for a batch to be full",
        _GATHERING,
        "        try:\n            self._flush()\n            yield\n",
        "        try:\n            yield\n",
        "B8",
    ),
)
"""In the order of the checks."""
