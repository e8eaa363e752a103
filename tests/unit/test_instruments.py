"""What instruments are told, in brief and at length."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import timedelta

from eventkit import Bus, Context, Event, Retry, Service
from eventkit.adapter import Address, Connection, Message
from eventkit.contract.checks import eventually
from eventkit.instruments import Attempt, Brief, Handling, Instrument, Place
from eventkit.memory import MemoryAdapter, Store
from eventkit.watching import Happened, What

_SEEN: ContextVar[str] = ContextVar("seen", default="nothing")


class Weighed(Event, topic="weighed"):
    grams: int = 0


class Following(Instrument):
    """Notes what it is told."""

    def __init__(self, *, brief: bool = True, breaks: bool = False) -> None:
        self.said: list[str] = []
        self.seconds: list[float] = []
        self._brief = brief
        self._breaks = breaks

    def happened(self, place: Place, happened: Happened) -> None:
        if happened.what is not What.PUBLISHED:
            self.said.append(f"happened {happened.what}")

    def handling(self, place: Place, attempts: Sequence[Attempt]) -> Handling | None:
        self.said.append(f"handling {attempts[0].number}")
        return _Ending(self, attempts[0])

    def brief(self, place: Place, address: Address, type: str, handler: str) -> Brief | None:
        self.said.append(f"asked {place.group} {address} {type} {handler.rpartition('.')[2]}")
        return Brief(self._handled, self._begins) if self._brief else None

    def _begins(self, message: Message) -> bool:
        if self._breaks:
            raise OSError("begins")
        _SEEN.set("its own")
        return message.headers.get("length") != "full"

    def _handled(self, message: Message, seconds: float) -> None:
        self.said.append(f"handled {message.type}")
        self.seconds.append(seconds)
        if self._breaks:
            raise OSError("handled")


class _Ending:
    def __init__(self, of: Following, attempt: Attempt) -> None:
        self._of = of
        self._began = attempt.began

    def ended(self, endings: Sequence[Happened | None]) -> None:
        self._of.said.append(f"ended {', '.join(one.what if one is not None else 'untried' for one in endings)}")
        self._of.seconds.append(time.perf_counter() - self._began)


def weighing(seen: list[str], failing: int = 0) -> Service:
    service = Service("weighing", retry=Retry(attempts=2, first_delay=timedelta(0)))

    @service.handler
    async def weigh(event: Weighed) -> None:
        nonlocal failing
        await asyncio.sleep(0.02)
        seen.append(_SEEN.get())
        _SEEN.set("the last one's")
        if failing:
            failing -= 1
            raise ConnectionError("away")

    return service


def told(*instruments: Following, service: Service, count: int = 1, full: bool = False) -> None:
    async def run() -> None:
        adapter = MemoryAdapter(Connection(url=None, namespace="", client="test"), store=Store())
        async with Bus(adapter, source="test", instruments=instruments) as bus, bus.run(service) as running:
            for _ in range(count):
                await bus.publish(Weighed(), headers={"length": "full"} if full else None)
            await eventually(lambda: running.counts["weighing"].handled == count, "all")

    asyncio.run(asyncio.wait_for(run(), 20))


ASKED = "asked weighing topic:weighed Weighed weigh"


def test_what_goes_well_is_told_in_brief() -> None:
    one, seen = Following(), list[str]()
    told(one, service=weighing(seen), count=3)
    assert one.said == [ASKED, *["handled Weighed"] * 3]
    assert all(0.015 < seconds < 5 for seconds in one.seconds), one.seconds
    assert seen == ["its own"] * 3, "each message has its own context"


def test_what_fails_is_told_at_length_and_from_its_beginning() -> None:
    one = Following()
    told(one, service=weighing([], failing=1))
    first = ["handling 1", "happened retried", "ended retried"]
    assert one.said == [ASKED, *first, "handling 2", "happened handled", "ended handled"]
    assert one.seconds[0] > 0.015, "the handler's time is in it"


def test_an_instrument_may_want_one_message_at_length() -> None:
    one = Following()
    told(one, service=weighing([]), full=True)
    assert one.said == [ASKED, "handling 1", "happened handled", "ended handled"]


def test_one_that_knows_no_brief_has_all_told_at_length_to_each() -> None:
    one, other = Following(), Following(brief=False)
    told(one, other, service=weighing([]))
    assert one.said == other.said == [ASKED, "handling 1", "happened handled", "ended handled"]


def test_one_that_breaks_harms_no_message_and_no_other() -> None:
    broken, whole, seen = Following(breaks=True), Following(), list[str]()
    told(broken, whole, service=weighing(seen), count=2)
    assert whole.said == [ASKED, *["handled Weighed"] * 2]
    assert len(seen) == 2


def test_a_handler_that_wants_its_context_is_told_of_at_length() -> None:
    service = Service("weighing")

    @service.handler
    async def weigh(event: Weighed, context: Context) -> None: ...

    one = Following()
    told(one, service=service)
    assert one.said == [ASKED, "handling 1", "happened handled", "ended handled"]
