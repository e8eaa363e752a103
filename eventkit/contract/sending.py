"""H4, F16: what a handler sends."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any

from eventkit import headers as h
from eventkit.bus import Bus
from eventkit.context import Context
from eventkit.contract.checks import Backend, bus, check, eventually, fresh_namespace, largest_message, stays
from eventkit.contract.letters import dead_letters
from eventkit.contract.refusing import Refusing
from eventkit.copies import Reason
from eventkit.messages import Command, Event
from eventkit.retry import Retry
from eventkit.service import Service

_RETRY = Retry(attempts=3, first_delay=timedelta(0), jitter=0)


class Act(Event, topic="sending.acts", key="name"):
    name: str


class Told(Event, topic="sending.told"):
    text: str
    thing: Any = None


class Nobody(Command, service="nobody-at-all"):
    """Its service does not exist."""


@check("H4", "a message that can never be sent makes its cause a dead letter, unsendable, which names it; no retry")
async def unsendable(backend: Backend) -> None:
    namespace = fresh_namespace()
    service, listener = Service("actor", retry=_RETRY), Service("listener")
    tried: Counter[str] = Counter()
    heard: list[str] = []

    @service.handler
    async def act(event: Act, context: Context) -> list[Event | Command] | None:
        tried[event.name] += 1
        match event.name:
            case "no owner":
                context.send(Nobody())
            case "not JSON":
                return [Told(text="what is no JSON", thing=object())]
            case "no message":
                return [event.name]  # type: ignore[list-item]  # as a handler without annotations might
            case "too large":
                context.publish(Told(text="x" * limit))
            case _:
                return [Told(text=event.name)]
        return None

    @listener.handler
    async def told(event: Told) -> None:
        heard.append(event.text)

    bad = {"no owner": "nobody", "not JSON": "told", "no message": "str", "too large": "told"}
    limit = await largest_message(backend)
    if limit > 1 << 26:  # as on RabbitMQ and Redis, which take almost anything: not worth the memory
        del bad["too large"]
    async with bus(backend, namespace) as b, b.run(service, listener) as running:
        await b.publish_many([Act(name=name) for name in bad])
        letters = await dead_letters(backend, namespace, "actor", len(bad), 30.0)
        await b.publish(Act(name="fine"))
        await eventually(lambda: heard, "the service goes on")
        assert running.counts["actor"].retried == 0
    assert heard == ["fine"]
    assert tried == dict.fromkeys([*bad, "fine"], 1)
    for letter in letters:
        assert (letter.headers[h.REASON], letter.headers[h.ATTEMPT]) == (Reason.UNSENDABLE, "1"), letter.key
        said = letter.headers[h.ERROR_MESSAGE]
        assert bad[letter.key or ""] in said.lower(), f"{letter.key}: it does not name the message: {said}"


@check("F16", "what goes out again after a crash or a refusal has the same ids as before")
async def same_ids(backend: Backend) -> None:
    namespace = fresh_namespace()
    service, listener = Service("actor"), Service("listener")
    tried: Counter[str] = Counter()
    heard: dict[str, set[str]] = defaultdict(set)

    @service.handler
    async def act(event: Act, context: Context) -> list[Event]:
        tried[event.name] += 1
        context.publish(Told(text=f"{event.name} collected"))
        return [Told(text=f"{event.name} returned"), Told(text=f"{event.name} returned too")]

    @listener.handler
    async def told(event: Told, context: Context) -> None:
        heard[event.text].add(context.id)

    async with bus(backend, namespace) as b, b.run(listener):
        dying, living = (Refusing(backend.adapter(namespace)) for _ in range(2))
        async with Bus(dying.adapter, source="contract") as first, first.run(service):
            # as if it died after it has published and before it settles
            dying.settles = False
            await b.publish(Act(name="crash"))
            await eventually(lambda: len(heard) == 3, "the first attempt has sent all")
        async with Bus(living.adapter, source="contract") as second, second.run(service):
            await eventually(lambda: tried["crash"] == 2, "it is handled again")
            living.refuses = lambda address: address.name == "sending.told" and living.count < 4
            await b.publish(Act(name="refused"))
            await eventually(lambda: len(heard) == 6, "what was refused is sent later")
            await stays(lambda: tried["refused"] == 1, "the handler ran again for what was refused", 0.2)
    assert {text: len(ids) for text, ids in heard.items()} == dict.fromkeys(heard, 1), f"other ids than before: {heard}"
    assert len(set().union(*heard.values())) == 6, "one id for two messages"
