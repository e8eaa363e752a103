"""F, continued: what a dead letter says, and that each is written."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from eventkit import headers as h
from eventkit.adapter import Address, Group, Provision
from eventkit.bus import Bus
from eventkit.contract.checks import Backend, bus, check, eventually, fresh_namespace
from eventkit.contract.letters import listed
from eventkit.contract.receiving import contents, put, raw, started
from eventkit.contract.refusing import Refusing
from eventkit.copies import STACK, TEXT, Reason
from eventkit.errors import GiveUp, MessageTooLarge
from eventkit.messages import Command, Event
from eventkit.retry import Retry
from eventkit.service import Service

_LARGEST = 16 * 1024 * 1024
"""Larger messages are not made."""
_LONGEST_HEADER = 1_000_000
"""Characters of the longest header that a check makes."""
_CUT = 20
"""Characters that may mark a text as cut."""


class Parcel(Event, topic="letters.parcels", key="name"):
    name: str
    number: int = 0
    padding: str = ""


class Crate(Event, topic="letters.parcels", key="name"):
    """Nobody handles it. As long as a parcel in all but its content."""

    name: str
    number: int = 0
    padding: str = ""


class Weigh(Command, service="worker"):
    number: int


def _deep(levels: int) -> None:
    if levels:
        _deep(levels - 1)
    raise LookupError("ließe sich nicht finden ✗ " * 400)


@check("F7", "a dead letter says why, where, how often and when, whose it is and what was raised; all of it bounded")
async def metadata_is_complete(backend: Backend) -> None:
    namespace = fresh_namespace()
    service = Service("worker", retry=Retry(attempts=2, first_delay=timedelta(milliseconds=300), jitter=0))

    @service.handler
    async def parcel(event: Parcel) -> None:
        if event.number:
            _deep(event.number)
        raise ValueError(f"no {event.name}")

    @service.handler
    async def weigh(command: Weigh) -> None:
        raise GiveUp("it cannot be weighed")

    began = datetime.now(UTC) - timedelta(seconds=1)
    async with bus(backend, namespace, "shop") as b, b.run(service):
        await b.publish(Parcel(name="plain"), id="one", correlation_id="all", headers={"x-tenant": "north"})
        await b.publish(Parcel(name="deep", number=200), id="two")
        await b.send(Weigh(number=7), id="three")
        broken = b.encode(Parcel(name="broken"), id="four")
        await b.deliver([broken._replace(body=b"{not json")])
        found = {letter.id: letter for letter in await listed(b, "worker", 4)}
    ended = datetime.now(UTC) + timedelta(seconds=1)

    one = found["one"]
    assert (one.type, one.key, one.group, one.origin) == (
        "Parcel",
        "plain",
        "worker",
        Address("topic", "letters.parcels"),
    )
    assert (one.reason, one.attempts, one.redriven) == (Reason.EXHAUSTED, 2, 0)
    assert one.first_failure is not None
    assert one.last_failure is not None
    assert began < one.first_failure < one.last_failure < ended
    assert one.last_failure - one.first_failure > timedelta(milliseconds=290), "the second attempt came later"
    assert (one.error_type, one.error_message) == ("ValueError", "no plain")
    assert one.error_stack is not None
    assert 'raise ValueError(f"no {event.name}")' in one.error_stack, one.error_stack
    assert one.read(Parcel) == Parcel(name="plain")
    assert dict(one.headers) == {"x-tenant": "north"}
    assert (one.message.headers[h.SOURCE], one.message.headers[h.CORRELATION]) == ("shop", "all")
    assert "plain" in str(one.body)
    assert "north" not in repr(one)

    two = found["two"]
    assert two.error_message is not None
    assert two.error_stack is not None
    assert TEXT <= len(two.error_message) <= TEXT + _CUT
    assert STACK <= len(two.error_stack) <= STACK + _CUT
    assert "cut" in two.error_message[-_CUT:]
    assert "cut" in two.error_stack[:_CUT]
    assert two.error_message.startswith("ließe sich nicht finden ✗ ließe")

    three = found["three"]
    assert (three.type, three.key, three.reason, three.attempts) == ("Weigh", None, Reason.GAVE_UP, 1)
    assert three.origin == Address("inbox", "worker")
    assert three.error_message == "it cannot be weighed"
    assert three.first_failure == three.last_failure
    four = found["four"]
    assert (four.reason, four.attempts, four.body) == (Reason.UNDECODABLE, 1, b"{not json")
    assert four.error_message


@check("F19", "a dead letter fits wherever the message fitted, however large that was; so does its retry")
async def letter_fits(backend: Backend) -> None:
    namespace = fresh_namespace()
    service = Service("worker", retry=Retry(attempts=2, first_delay=timedelta(0), jitter=0))
    works = False
    handled: list[str] = []

    @service.handler
    async def parcel(event: Parcel) -> None:
        if not works:
            _deep(200)
        handled.append(event.name)

    adapter = backend.adapter(namespace)
    limit = (await adapter.start(15.0)).message_bytes
    await adapter.stop(5.0)
    async with bus(backend, namespace) as b, b.run(service):
        said = "x" * await _longest_header(b)
        for less in range(0, 20_000, 200) if limit <= _LARGEST else ():
            try:
                await b.publish(Parcel(name="body", padding="x" * (limit - less)))
            except MessageTooLarge:
                continue
            break
        else:
            assert limit > _LARGEST, f"no message near the limit of {limit:,} bytes can be published"
        await b.publish(Parcel(name="header"), headers={"x-said": said})
        count = 1 + (limit <= _LARGEST)
        letters = {letter.key: letter for letter in await listed(b, "worker", count)}
        assert all(letter.error_type == "LookupError" and letter.error_stack for letter in letters.values())
        assert letters["header"].headers == {"x-said": said}, "a header was cut"
        if count > 1:
            body = letters["body"].body
            assert body is not None
            assert len(body) > limit - 20_000
        works = True
        assert await b.dead_letters("worker").retry(all=True) == count
        await eventually(lambda: len(handled) >= count, "they are handled at last")
    assert set(handled) == letters.keys()


async def _longest_header(b: Bus) -> int:
    """How long a header may be: of a message that nobody handles."""
    fits, refused, said = 0, _LONGEST_HEADER, "Crate"
    while refused - fits > 100:
        middle = (fits + refused) // 2
        try:
            await b.publish(Crate(name="header"), headers={"x-said": "x" * middle})
        except MessageTooLarge as error:
            refused, said = middle, str(error)
        else:
            fits = middle
    assert "Crate" in said, f"it does not name the message: {said}"
    assert fits > 1_000, "a broker takes headers"
    return fits


@check("F11", "while dead letters cannot be written their messages are kept: each is one dead letter in the end")
async def refused_letter_is_kept(backend: Backend) -> None:
    namespace = fresh_namespace()
    service = Service("worker", retry=Retry(attempts=1), stop_timeout=timedelta(seconds=2))
    calls: Counter[str] = Counter()

    @service.handler
    async def parcel(event: Parcel) -> None:
        calls[event.name] += 1
        if event.number:
            raise RuntimeError("never")

    @service.handler
    async def weigh(command: Weigh) -> None:
        calls[f"weigh {command.number}"] += 1
        raise GiveUp("never")

    names = [f"bad {n}" for n in range(3)]
    broken = Refusing(backend.adapter(namespace))
    broken.refuses = lambda address: address.kind == "dead"
    async with Bus(broken.adapter, source="contract") as b:
        async with b.run(service) as running:
            await b.publish_many([Parcel(name=name, number=1) for name in names])
            await b.send(Weigh(number=1))
            await eventually(lambda: broken.count >= 8, "each is refused, and asked for again", 10.0)
            await b.publish(Parcel(name="good"))
            await eventually(lambda: calls["good"], "the others go on")
            await listed(b, "worker", 0)
            assert running.health().ok
            assert calls == {**dict.fromkeys(names, 1), "weigh 1": 1, "good": 1}, "their handlers ran again"
            broken.refuses = lambda address: False
            await listed(b, "worker", 4, within=15.0)
            broken.refuses = lambda address: address.kind == "dead"
            await b.publish(Parcel(name="last", number=1), id="last")
            refused = broken.count
            await eventually(lambda: broken.count > refused, "the last one is refused")
        broken.refuses = lambda address: False
        async with b.run(service):
            found = await listed(b, "worker", 5, within=30.0)
    assert Counter(letter.key for letter in found) == dict.fromkeys([*names, "last", None], 1)
    assert all(letter.attempts == 1 and letter.error_type for letter in found)


@check("F22", "browsing shows dead letters oldest first; what is removed is gone, and nothing else; twice is no error")
async def removed(backend: Backend) -> None:
    group = Group("worker", (Address("topic", "letters.parcels"),))
    async with started(backend, fresh_namespace()) as adapter, started(backend, fresh_namespace()) as elsewhere:
        for one in (adapter, elsewhere):
            await one.provision([group], Provision.CREATE)
        for number in range(6):  # one by one: all at once they may be of the same age
            await put(adapter, raw(group.dead, b"%d" % number, "k"))
        await put(elsewhere, raw(group.dead, b"of another namespace", "k"))
        found = await contents(adapter, group.dead)
        assert [letter.message.body for letter in found] == [b"%d" % number for number in range(6)], "not oldest first"
        assert len({letter.position for letter in found}) == 6
        assert list(await adapter.remove([found[1], found[4]])) == [None, None]
        left = await contents(adapter, group.dead)
        assert [letter.message.body for letter in left] == [b"0", b"2", b"3", b"5"]
        assert list(await adapter.remove([found[4], left[0], found[1]])) == [None, None, None], "one was gone already"
        assert list(await adapter.remove([])) == []
        left = await contents(adapter, group.dead)
        assert [letter.message.body for letter in left] == [b"2", b"3", b"5"]
        assert [letter.position for letter in left] == [found[at].position for at in (2, 3, 5)]
        assert len(await contents(elsewhere, group.dead)) == 1
