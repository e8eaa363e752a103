"""Breaks of the adapters, each shown on its own broker."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_REDIS, _NATS = "adapters/eventkit_redis", "adapters/eventkit_nats"
_RABBIT, _KAFKA = "adapters/eventkit_rabbit", "adapters/eventkit_kafka"

BROKERS = (
    # Redis
    Mutant(
        "redis: take a release for done",
        f"{_REDIS}/settle.py",
        "            source.released.append(entry)\n            self.freed(1)\n",
        "            source.done.append(entry)\n            self.freed(1)\n",
        "L6",
        "redis",
    ),
    Mutant(
        "redis: swallow a release",
        f"{_REDIS}/settle.py",
        "            source.released.append(entry)\n            self.freed(1)\n",
        "            self.freed(1)\n",
        "tests/adapters/test_redis.py::test_release_comes_back_to_anyone",
        "redis",
    ),
    Mutant(
        "redis: forget the lease",
        f"{_REDIS}/lease.py",
        "                await self.renew(self._link)\n",
        "                await asyncio.sleep(0)\n",
        "D11",
        "redis",
    ),
    Mutant(
        "redis: renew a lost lease",
        f"{_REDIS}/scripts.py",
        "  local id = ARGV[i]\n  if mine(KEYS[1], ARGV[1], ARGV[2], id) then\n",
        "  local id = ARGV[i]\n  if true then\n",
        "L10",
        "redis",
    ),
    Mutant(
        "redis: settle what went to another",
        f"{_REDIS}/settle.py",
        "            if sure and not deletes:\n",
        "            if not deletes:\n",
        "L10",
        "redis",
    ),
    Mutant(
        "redis: move what went to another",
        f"{_REDIS}/scripts.py",
        "if not held(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]) then return 0 end\n"
        "if ARGV[5] == '1' and redis.call('EXISTS', KEYS[2]) == 0 then return -1 end\n",
        "if ARGV[5] == '1' and redis.call('EXISTS', KEYS[2]) == 0 then return -1 end\n",
        "L10",
        "redis",
    ),
    Mutant(
        "redis: finish what could not be moved",
        f"{_REDIS}/settle.py",
        "            source.held[entry] = delivery.token  # type: ignore[assignment]\n"
        "            self._receive.unsettled(delivery, how, reply)\n"
        "            return\n",
        "            source.done.append(entry)\n            self._later(source)\n            return\n",
        "tests/adapters/test_redis.py::test_a_full_redis_refuses_and_loses_nothing",
        "redis",
    ),
    Mutant(
        "redis: confirm what the broker did not answer",
        f"{_REDIS}/publish.py",
        "            answers[index] = _unknown(call.error)\n",
        "            answers[index] = None\n",
        "L3",
        "redis",
    ),
    Mutant(
        "redis: a new group begins with what was there before",
        f"{_REDIS}/topology.py",
        'start = "0" if group.start == "earliest" else "$"',
        'start = "0"',
        "Q2",
        "redis",
    ),
    # NATS
    Mutant(
        "nats: take a release for done",
        f"{_NATS}/settle.py",
        "                    self._out.append(_NAK % reply)\n",
        "                    self._acks.append(_ACK % reply)\n",
        "L6",
        "nats",
    ),
    Mutant(
        "nats: forget the lease",
        f"{_NATS}/settle.py",
        '        if lines:\n            self._link.write(b"".join(lines))\n',
        '        if not lines:\n            self._link.write(b"".join(lines))\n',
        "D11",
        "nats",
    ),
    Mutant(
        "nats: renew a lost lease",
        f"{_NATS}/settle.py",
        "                if now < until < soon:\n",
        "                if until < soon:\n",
        "L10",
        "nats",
    ),
    Mutant(
        "nats: finish what could not be moved",
        f"{_NATS}/settle.py",
        "            if answer is None:\n                self.retrying.discard(reply)\n",
        "            if answer is None or True:\n                self.retrying.discard(reply)\n",
        "tests/adapters/test_nats.py::test_a_failed_copy_keeps_the_original",
        "nats",
    ),
    Mutant(
        "nats: ack before the confirm",
        f"{_NATS}/settle.py",
        "            self._moves.append((delivery, how))\n",
        "            self._moves.append((delivery, how))\n            self._acks.append(_ACK % reply)\n",
        "tests/adapters/test_nats.py::test_a_failed_copy_keeps_the_original",
        "nats",
    ),
    # RabbitMQ
    Mutant(
        "rabbit: take a release for done",
        f"{_RABBIT}/consume.py",
        "            tags.release(tag)\n",
        "            tags.done(tag)\n",
        "L6",
        "rabbit",
    ),
    Mutant(
        "rabbit: swallow a nack",
        f"{_RABBIT}/tags.py",
        "        self._back.add(tag)\n",
        "        self._settled.add(tag)\n",
        "tests/adapters/test_rabbit.py::test_release_comes_back_and_settling_twice_is_harmless",
        "rabbit",
    ),
    Mutant(
        "rabbit: acknowledge past what is in flight",
        f"{_RABBIT}/tags.py",
        "out.append(write.ack(channel, last, multiple=True))",
        "out.append(write.ack(channel, self._top, multiple=True))",
        "O5",
        "rabbit",
    ),
    Mutant(
        "rabbit: ack before the confirm",
        f"{_RABBIT}/consume.py",
        "            tags.begin(tag)\n",
        "            tags.done(tag)\n            session.flush()\n",
        "tests/adapters/test_rabbit.py::test_a_failed_move_keeps_the_delivery",
        "rabbit",
    ),
    Mutant(
        "rabbit: take a refusal for a confirm",
        f"{_RABBIT}/confirms.py",
        "sent.call.answer(sent.job.place, None if accepted else amqp.DeliveryError(None, Basic.Nack(tag)))",
        "sent.call.answer(sent.job.place, None)",
        "tests/adapters/test_rabbit_confirms.py::test_a_refusal_is_no_confirm",
        "rabbit",
    ),
    Mutant(
        "rabbit: confirm what was not answered when the channel closed",
        f"{_RABBIT}/confirms.py",
        "            one.call.answer(one.job.place, error)\n",
        "            one.call.answer(one.job.place, None)\n",
        "L3",
        "rabbit",
    ),
    # Kafka
    Mutant(
        "kafka: commit past what is in flight",
        f"{_KAFKA}/progress.py",
        "        watermark = next(iter(self.pending), self.next)\n",
        "        watermark = self.next\n",
        "O5",
        "kafka",
    ),
    Mutant(
        "kafka: forget what was settled out of order",
        f"{_KAFKA}/progress.py",
        "        return watermark, encode(watermark, self.next, ranges, room - len(said)) + said\n",
        "        return watermark, said\n",
        "tests/adapters/test_kafka.py::test_settled_is_not_delivered_again_and_held_is",
        "kafka",
    ),
    Mutant(
        "kafka: settle what was taken away",
        f"{_KAFKA}/lending.py",
        "            tracker.pending.clear()\n",
        "            pass\n",
        "L10",
        "kafka",
    ),
    Mutant(
        "kafka: finish what could not be moved",
        f"{_KAFKA}/lending.py",
        "            if answer is None:\n                del tracker.pending[offset]\n",
        "            if answer is None or True:\n                del tracker.pending[offset]\n",
        "tests/adapters/test_kafka.py::test_a_copy_that_cannot_be_published_keeps_the_original",
        "kafka",
    ),
    Mutant(
        "kafka: release takes the earlier arrival for this one",
        f"{_KAFKA}/lending.py",
        "            batch.append(self.lend(tracker, offset, delivery.message, arrival + 1))\n",
        "            batch.append(self.lend(tracker, offset, delivery.message, arrival))\n",
        "D10",
        "kafka",
    ),
)
