"""Breaks of the core: mostly shown in memory, where a check takes a moment."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_CONSUMING, _OUTCOMES, _COPIES = "eventkit/consuming.py", "eventkit/outcomes.py", "eventkit/copies.py"
_LANES, _SUSPECTS, _OUTGOING = "eventkit/lanes.py", "eventkit/suspects.py", "eventkit/outgoing.py"

CORE = (
    Mutant(
        "settle before the handler",
        _CONSUMING,
        "            how = self._outcomes.begin(item)\n",
        "            if self._consumer is not None:\n"
        "                self._consumer.settle(item, Done())\n"
        "            how = self._outcomes.begin(item)\n",
        "D6",
    ),
    Mutant(
        "settle although the handler was cancelled by a stop",
        _CONSUMING,
        "            if self._outcomes.aborting:\n                how = self._suspects.given_back(item)\n",
        "            if self._outcomes.aborting:\n                how = Done()\n",
        "D6",
    ),
    Mutant(
        "count a release as an attempt",
        _OUTCOMES,
        "isinstance(error, KeyboardInterrupt) or (isinstance(error, asyncio.CancelledError) and self.aborting)",
        "isinstance(error, KeyboardInterrupt)",
        "L6",
    ),
    Mutant(
        "drop the attempt header",
        _COPIES,
        'f"{attempt}", {h.ATTEMPT: str(attempt)}, failed_at)',
        'f"{attempt}", {}, failed_at)',
        "F1",
    ),
    Mutant(
        "one attempt too many",
        "eventkit/retry.py",
        "return attempt < self.attempts and",
        "return attempt <= self.attempts and",
        "F3",
    ),
    Mutant(
        "try again what the policy never retries",
        "eventkit/retry.py",
        " and not isinstance(error, (GiveUp, *self.never))",
        "",
        "F8",
    ),
    Mutant(
        "try again without the delay",
        _OUTCOMES,
        "        due = now + waits if waits else None\n",
        "        due = None\n",
        "F4",
    ),
    Mutant(
        "deliver a delayed publish at once",
        _OUTCOMES,
        "        if due is not None and due > now:\n",
        "        if due is not None and due < now:\n",
        "F4",
    ),
    Mutant(
        "share a retry address between groups",
        "eventkit/adapter.py",
        'return Address("retry", self.name)',
        'return Address("retry", self.name.partition(".")[0])',
        "F1",
    ),
    Mutant(
        "reuse a broker id for a copy",
        _COPIES,
        'h.MESSAGE_ID: _copy_id(carried, group, f"{redriven(message)}.{step}")}',
        "h.MESSAGE_ID: _id(delivery)}",
        "F3",
        "nats",
    ),
    Mutant(
        "reuse a broker id for a redrive",
        _COPIES,
        'h.MESSAGE_ID: _copy_id(headers, group, f"redrive.{count}"),',
        "h.MESSAGE_ID: headers[h.ID],",
        "F12",
        "nats",
    ),
    Mutant(
        "take two messages of one id for one",
        _COPIES,
        "for name in (h.SOURCE, h.TYPE, h.ORIGIN))",
        "for name in ())",
        "F6",
        "redis",
    ),
    Mutant(
        "redrive without counting",
        _COPIES,
        "        h.REDRIVEN: str(count),\n",
        "",
        "F12",
    ),
    Mutant(
        "redrive with the attempts used up",
        _COPIES,
        '        h.ATTEMPT: "1",\n',
        "",
        "F12",
    ),
    Mutant(
        "a dead letter that does not say where it came from",
        _COPIES,
        '        headers[h.ORIGIN] = str(address) + (f"|{address.physical}" if address.physical else "")\n',
        "        pass\n",
        "F7",
    ),
    Mutant(
        "a stack of any length",
        _COPIES,
        "h.ERROR_STACK: _tail(stack, STACK),",
        "h.ERROR_STACK: stack,",
        "F7",
    ),
    Mutant(
        "a refusal as a failure",
        _OUTCOMES,
        "            return await self._rejected(entry, delivery, error, attempt)\n",
        "            pass\n",
        "F17",
    ),
    Mutant(
        "emit although the handler failed",
        _OUTCOMES,
        "        except BaseException as error:  # noqa: BLE001 whatever a handler raises is a failure of its message\n"
        "            return self._blame(error)\n"
        "        if self.telling.each:\n",
        "        except BaseException as error:  # noqa: BLE001 whatever a handler raises is a failure of its message\n"
        "            if call.outgoing:\n"
        "                await self.emitter.succeeded(entry, delivery, None, call.outgoing)\n"
        "            return self._blame(error)\n"
        "        if self.telling.each:\n",
        "F15",
    ),
    Mutant(
        "new ids for what goes out again",
        _OUTGOING,
        "                id=str(derived),\n",
        "                id=str(uuid.uuid4()),\n",
        "F16",
    ),
    Mutant(
        "skip an unknown command",
        _OUTCOMES,
        '        kept = message.address.kind == "inbox" or self._table.newer(message) or copies.taken(arrived)\n',
        "        kept = self._table.newer(message) or copies.taken(arrived)\n",
        "R7",
    ),
    Mutant(
        "skip a newer version",
        _OUTCOMES,
        '        kept = message.address.kind == "inbox" or self._table.newer(message) or copies.taken(arrived)\n',
        '        kept = message.address.kind == "inbox" or copies.taken(arrived)\n',
        "R8",
    ),
    Mutant(
        "run an expired request",
        _OUTCOMES,
        "        if deadline is not None and deadline <= now:\n",
        "        if deadline is not None and deadline <= now - timedelta(days=1):\n",
        "Q1",
    ),
    Mutant(
        "an undecodable message is skipped",
        _OUTCOMES,
        "            return await self._given_up(entry, delivery, Reason.UNDECODABLE, error, attempt)\n",
        "            return DONE\n",
        "F9",
    ),
    Mutant(
        "a key is no lane",
        _LANES,
        "            if behind is None:\n                lanes[key] = deque((item,))\n",
        "            if behind is None:\n                self._ready.append(item)\n",
        "O2",
    ),
    Mutant(
        "more at once than the concurrency",
        _LANES,
        "        if len(self._workers) < self._concurrency:\n",
        "        if len(self._workers) < self._concurrency + 1:\n",
        "S2",
    ),
    Mutant(
        "one context for all messages",
        _LANES,
        "            context = base.copy()\n",
        "            context = base\n",
        "H2",
    ),
    Mutant(
        "a cancellation ends the lane's worker",
        _LANES,
        "            if turns >= _TURNS or (worker.cancelling() and not self._closed):\n",
        "            if turns >= _TURNS:\n",
        "H1",
    ),
    Mutant(
        "no backpressure",
        _CONSUMING,
        "        if over > 0:\n",
        "        if over > 1 << 62:\n",
        "tests/unit/test_consuming.py::test_the_core_holds_back_an_adapter_that_delivers_more_than_was_asked_for",
    ),
    Mutant(
        "a stop that waits for nothing",
        _CONSUMING,
        "                    await self._wait_for(list(self._held))\n        except TimeoutError:",
        "                    pass\n        except TimeoutError:",
        "L5",
    ),
    Mutant(
        "a settlement that failed is forgotten",
        _CONSUMING,
        "        self._clock.call_later(pause, again)\n",
        "",
        "F11",
    ),
    Mutant(
        "a copy that is too large is tried again as it is",
        _CONSUMING,
        "            if shorter is not None:\n",
        "            if False:\n",
        "tests/faults/test_no_room.py::test_headers_that_fill_all_that_the_broker_takes[nats-65490]",
        "nats",
    ),
    Mutant(
        "a circuit that uses up attempts",
        _OUTCOMES,
        "            self._waiting[id(arrived)] = attempt\n            return wait\n",
        "            self._waiting[id(arrived)] = attempt + 1\n            return wait\n",
        "F14",
    ),
    Mutant(
        "a suspect is condemned without a trial",
        _SUSPECTS,
        "            self._wait(delivery, Suspicion(0, 0, trial=0))\n            return\n",
        "            self._task(delivery, self._quarantine(delivery))\n            return\n",
        "F13",
        "redis",
    ),
    Mutant(
        "begin a trial while its original is not settled for sure",
        _SUSPECTS,
        "                await self._flush(_FLUSH)\n            except Exception as error:",
        "                pass\n            except Exception as error:",
        "F13",
        "rabbit",
    ),
    Mutant(
        "a suspect runs beside others",
        "eventkit/silence.py",
        "not self._alone and not any(lanes.running for lanes in self._lanes)",
        "not self._alone",
        "F13",
        "redis",
    ),
    Mutant(
        "a fresh correlation for each message",
        _OUTGOING,
        "                correlation_id=parent.get(h.CORRELATION) or parent.get(h.CORRELATION_ID) or parent_id,\n",
        "                correlation_id=None,\n",
        "M3",
    ),
)
