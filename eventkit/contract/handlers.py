"""H: what a handler runs in."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from datetime import timedelta
from typing import Annotated, Any

from eventkit import headers as h
from eventkit.adapter import Delivery
from eventkit.context import Context
from eventkit.contract.checks import Backend, bus, check, eventually, fresh_namespace, largest_message, stays
from eventkit.contract.letters import dead_letters
from eventkit.copies import Reason
from eventkit.messages import Event
from eventkit.parameters import Depends
from eventkit.retry import Retry
from eventkit.service import CallNext, Service

_NOW = timedelta(0)
_MOST = 4 << 20
"""Bytes of the largest message that a check makes."""

_said: ContextVar[str] = ContextVar("_said", default="nothing")


class Act(Event, topic="handlers.acts", key="name"):
    name: str
    text: str = ""


class Plain(Event, topic="handlers.acts", key="name"):
    """For a plain function."""

    name: str


class Told(Event, topic="handlers.told"):
    text: str
    thing: Any = None


class _Wordless(Exception):
    """Its own text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def _retry(attempts: int) -> Retry:
    return Retry(attempts=attempts, first_delay=_NOW, jitter=0)


async def _go_wrong(how: str) -> None:
    """In all ways that could end a worker, and not only a message."""
    task = asyncio.current_task()
    assert task is not None
    match how:
        case "cancels itself":
            task.cancel()
            await asyncio.sleep(0)
        case "cancels itself and fails":
            task.cancel()
            raise RuntimeError("before that took effect")
        case "awaits what is cancelled":
            waits: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(waits.cancel)
            await waits
        case "raises a cancellation":
            raise asyncio.CancelledError
        case "exits":
            raise SystemExit(3)
        case "exits later":
            await asyncio.sleep(0.001)
            raise SystemExit(3)
        case "generator":
            raise GeneratorExit
        case "stops":
            raise StopAsyncIteration
        case "wordless":
            raise _Wordless
        case "half a letter":  # as in the name of a file that is no UTF-8
            raise OSError("no such file: \udcff")


_WRONG = (
    *("cancels itself", "cancels itself and fails", "awaits what is cancelled", "raises a cancellation"),
    *("exits", "exits later", "generator", "stops", "wordless", "half a letter"),
)


@check("H1", "a cancellation of its own making, SystemExit and their like fail the message, and never its lane")
async def self_made_cancellation(backend: Backend) -> None:
    namespace = fresh_namespace()
    service = Service("actor", concurrency=2, retry=_retry(2))
    tried: Counter[str] = Counter()
    fine: set[str] = set()

    @service.handler
    async def act(event: Act) -> None:
        tried[event.name] += 1
        await _go_wrong(event.name)
        await asyncio.sleep(0.001)
        fine.add(event.name)

    @service.handler
    def plain(event: Plain) -> None:
        tried[event.name] += 1
        raise SystemExit(4) if event.name == "plain exits" else StopIteration

    plain_ones = ("plain exits", "plain stops")
    async with bus(backend, namespace) as b, b.run(service) as running:
        for name in _WRONG:
            await b.publish_many([Act(name=name), Act(name=f"after {name}")])
        await b.publish_many([Plain(name=name) for name in plain_ones])
        letters = await dead_letters(backend, namespace, "actor", len(_WRONG) + 2)
        await b.publish_many([Act(name=f"fine {n}") for n in range(20)])
        await eventually(lambda: len(fine) == 20 + len(_WRONG), f"the others are handled, not only {fine}")
        assert running.health().ok
        expected = Counter(dict.fromkeys((*_WRONG, *plain_ones), 2)) + Counter(fine)
        await stays(lambda: tried == expected, f"tried otherwise: {tried}", 0.1)
    found = {letter.key: letter.headers for letter in letters}
    assert {(letter.headers[h.REASON], letter.headers[h.ATTEMPT]) for letter in letters} == {(Reason.EXHAUSTED, "2")}
    assert found["exits"][h.ERROR_TYPE] == found["plain exits"][h.ERROR_TYPE] == "SystemExit"
    assert "CancelledError" in found["cancels itself"][h.ERROR_TYPE]
    assert found["wordless"][h.ERROR_MESSAGE], "there is some readable text"


@check("H2", "each message has context variables of its own, as they were at the start; a thread sees the middleware's")
async def contexts_are_isolated(backend: Backend) -> None:
    seen: list[tuple[str, str]] = []

    async def says(delivery: Delivery, call_next: CallNext) -> object:
        seen.append(("at the start", _said.get()))
        _said.set(f"of {delivery.message.key}")
        return await call_next(delivery)

    service, bare = Service("actor", concurrency=3, middleware=[says], retry=_retry(2)), Service("bare", concurrency=2)

    @service.handler
    async def act(event: Act, context: Context) -> None:
        seen.append((f"of {event.name}", _said.get()))
        _said.set(f"changed by {event.name}")
        await asyncio.sleep(0)
        seen.append((f"changed by {event.name}", _said.get()))
        if context.attempt == 1:
            raise RuntimeError("once")

    @service.handler
    def plain(event: Plain) -> None:
        seen.append((f"of {event.name}", _said.get()))
        _said.set("left behind in a thread")

    @bare.handler
    async def alone(event: Act) -> None:
        seen.append(("at the start", _said.get()))
        _said.set("left behind")

    token = _said.set("at the start")
    count = 12
    async with bus(backend, fresh_namespace()) as b, b.run(service, bare) as running:
        await b.publish_many([Act(name=f"a{n}") for n in range(count)])
        await b.publish_many([Plain(name=f"p{n}") for n in range(count)])
        await eventually(lambda: running.counts["actor"].handled == 2 * count, "all are handled")
        await eventually(lambda: running.counts["bare"].handled == count, "these, too")
    wrong = [(expected, found) for expected, found in seen if expected != found]
    assert wrong == [], f"a variable was not as it should be, but: {wrong[:5]}"
    assert _said.get() == "at the start"
    _said.reset(token)


@check("H3", "dependencies are torn down before anything is sent; they see the failure, and one of theirs is one")
async def dependencies_are_torn_down(backend: Backend) -> None:
    service, listener = Service("actor", retry=_retry(3)), Service("listener")
    happened: dict[str, list[str]] = defaultdict(list)
    torn_down: dict[str, float] = {}
    heard: dict[str, float] = {}

    async def session(context: Context) -> AsyncIterator[str]:
        name = f"{context.key} {context.attempt}"
        happened[name].append("set up")
        try:
            yield name
        except RuntimeError as error:
            happened[name].append(f"saw {error}")
            raise
        await asyncio.sleep(0.05)
        happened[name].append("torn down")
        torn_down[name] = time.monotonic()
        if context.key == "commit fails" and context.attempt == 1:
            raise ConnectionError("the commit failed")

    @service.handler
    async def act(event: Act, context: Context, session: Annotated[str, Depends(session)]) -> Told:
        happened[session].append("handled")
        context.publish(Told(text=f"{session} collected"))
        if event.name == "handler fails" and context.attempt == 1:
            raise RuntimeError("no")
        return Told(text=session)

    @listener.handler
    async def told(event: Told) -> None:
        heard.setdefault(event.text, time.monotonic())

    succeed = ("fine 1", "commit fails 2", "handler fails 2")
    async with bus(backend, fresh_namespace()) as b, b.run(service, listener) as running:
        await b.publish_many([Act(name="fine"), Act(name="commit fails"), Act(name="handler fails")])
        expected = {f"{name}{also}" for name in succeed for also in ("", " collected")}
        await eventually(lambda: heard.keys() >= expected, "what the successful attempts sent")
        await stays(lambda: heard.keys() == expected, f"a failed attempt spoke: {heard.keys() - expected}", 0.2)
        assert running.counts["actor"].retried == 2
    whole = ["set up", "handled", "torn down"]
    failed = ["set up", "handled", "saw no"]
    assert happened == dict.fromkeys((*succeed, "commit fails 1"), whole) | {"handler fails 1": failed}
    for name in succeed:
        assert heard[name] > torn_down[name], f"{name}: sent before its dependencies were torn down"


@check("H5", "past its time limit an attempt fails; what failures add is bounded, through all retries and redrives")
async def limits(backend: Backend) -> None:
    namespace = fresh_namespace()
    service = Service("actor", retry=_retry(3), timeout=timedelta(milliseconds=150))
    tried: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    sizes: dict[str, list[int]] = defaultdict(list)

    @service.handler
    async def act(event: Act, context: Context) -> None:
        tried[event.name] += 1
        sizes[event.name].append(_size(context.delivery.message.headers))
        if event.name == "hangs":
            try:
                await asyncio.Event().wait()
            finally:
                ended[event.name] += 1
        raise RuntimeError("🙈 ż" * 10_000)

    @service.handler
    def plain(event: Plain) -> None:
        tried[event.name] += 1
        time.sleep(0.3)  # cannot be cancelled: it goes on to its end
        ended[event.name] += 1

    limit = await largest_message(backend)
    async with bus(backend, namespace) as b, b.run(service):
        envelope = b.encode(Act(name="big"))
        largest = min(limit, _MOST) - len(envelope.body or b"") - _size(envelope.headers) - 500
        await b.publish_many([Act(name="hangs"), Act(name="loud"), Act(name="big", text="x" * largest)])
        await b.publish(Plain(name="plain"))
        first = {letter.key: letter for letter in await dead_letters(backend, namespace, "actor", 4, 30.0)}
        await eventually(lambda: ended["plain"] == 3, "plain functions end by themselves")
        for turn in (2, 3, 4):
            await b.dead_letters("actor").retry(type=Act)
            tries = 3 * turn
            await eventually(lambda: tried["loud"] == tried["big"] == tried["hangs"] == tries, "tried again")  # noqa: B023
            letters = await dead_letters(backend, namespace, "actor", 4, 30.0)
    last = {letter.key: letter for letter in letters}
    assert (ended["hangs"], tried["plain"]) == (12, 3), tried
    for name in ("hangs", "plain"):
        assert first[name].headers[h.ERROR_TYPE] == "TimeoutError"
        assert "longer than its limit" in first[name].headers[h.ERROR_MESSAGE]
    assert len(last["big"].body or b"") > largest, "the largest that fits dies whole"
    assert first["big"].body == last["big"].body
    for name in ("loud", "big"):
        before, after = _size(first[name].headers), _size(last[name].headers)
        assert before < 24_000, f"{before} bytes of headers"
        assert after < before + 200, f"headers grew from {before} to {after} bytes over three redrives"
        assert max(sizes[name]) < min(sizes[name]) + 800, f"headers grew over the attempts: {sizes[name]}"
        assert "[cut]" in last[name].headers[h.ERROR_MESSAGE]


def _size(headers: Mapping[str, str]) -> int:
    return sum(len(name.encode()) + len(value.encode()) for name, value in headers.items())
