"""Outgoing messages and replies: what leaves after a handler has succeeded, before its message is settled."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from eventkit import headers as h
from eventkit import replies
from eventkit.adapter import Delivery, Message
from eventkit.clock import Clock, check_delay, sleep
from eventkit.context import Outgoing
from eventkit.copies import brief
from eventkit.errors import CommandFailed, DeclarationError, InvalidMessage, MessageTooLarge, Reject
from eventkit.handling import Entry, frozen
from eventkit.instruments import Instruments, Place
from eventkit.messages import Command, Event, routing
from eventkit.publishing import Publisher, permanent
from eventkit.service import OutgoingMiddleware
from eventkit.watching import Happened, Watch, What
from eventkit.wire import Envelope, Serializer, encode

log = logging.getLogger("eventkit")

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_NAMESPACE = uuid.UUID("8f0c8f5e-7f0e-5d5b-9a53-1f2d3c4b5a69")


class Unsendable(Exception):
    """An outgoing message can never be sent; `why` names it."""

    def __init__(self, why: Exception) -> None:
        super().__init__(str(why))
        self.why = why


class Sending(NamedTuple):
    """What a handler's success lets go out."""

    entry: Entry
    delivery: Delivery
    result: object
    collected: Sequence[Outgoing]


class Emitter:
    """Publishes what a group's handlers send. A failure that may pass is tried again here, not in the handler."""

    def __init__(
        self,
        publisher: Publisher,
        place: Place,
        serializer: Serializer,
        clock: Clock,
        watch: Watch,
        instruments: Instruments | None,
    ) -> None:
        self._publisher = publisher
        self._place = place
        self._service = place.service
        self._group = place.group
        self._serializer = serializer
        self._clock = clock
        self._watch = watch if instruments is None else instruments.watch(place, watch)
        self._instruments = instruments

    async def succeeded(self, entry: Entry, delivery: Delivery, result: object, collected: Sequence[Outgoing]) -> None:
        """The handler returned `result` and collected these. Raises Unsendable."""
        messages, contents = self.made(Sending(entry, delivery, result, collected))
        await self.publish(messages, contents)

    async def succeeded_all(self, sending: Mapping[int, Sending]) -> dict[int, Exception]:
        """The same for many at once, in their order. Why what cannot be sent is not, by the place of its parent."""
        refused: dict[int, Exception] = {}
        messages: list[Message] = []
        contents: list[object] = []
        parents: list[int] = []
        for parent, item in sending.items():
            try:
                made, content = self.made(item)
            except Exception as error:  # noqa: BLE001 Unsendable, or what a type of the user's own raises: it harms no other
                refused[parent] = error
                continue
            messages += made
            contents += content
            parents += [parent] * len(made)
        for place, why in (await self._deliver(messages, contents)).items():
            refused.setdefault(parents[place], Unsendable(why))
        return refused

    def made(self, sending: Sending) -> tuple[list[Message], list[object]]:
        """The messages that go out, and what each was made from; None: a reply. Raises Unsendable."""
        entry, delivery, result, collected = sending
        outgoing = list(collected)
        reply = replies.NOTHING
        if entry.commands and entry.reply is not None:
            reply = self._value(entry, result)
        else:
            outgoing.extend(Outgoing(message, {}, None) for message in _returned(entry, result))
        outgoing = _changed(entry, delivery, outgoing)
        messages = self._encode(entry, delivery, outgoing)
        contents: list[object] = [item.message for item in outgoing]
        if entry.commands and h.REPLY_TO in delivery.message.headers:
            messages.append(self._reply(delivery, "ok", reply))
            contents.append(None)
        return messages, contents

    async def rejected(self, entry: Entry, delivery: Delivery, rejection: Reject) -> None:
        """The messages of a rejection, and the answer to its requester. Raises Unsendable."""
        await self.publish(*self.made_of_rejection(entry, delivery, rejection))

    def made_of_rejection(
        self, entry: Entry, delivery: Delivery, rejection: Reject
    ) -> tuple[list[Message], list[object]]:
        """The same for a rejection. Raises Unsendable."""
        outgoing = _changed(entry, delivery, [Outgoing(message, {}, None) for message in rejection.messages])
        messages = self._encode(entry, delivery, outgoing)
        if h.REPLY_TO in delivery.message.headers:
            messages.append(self._reply(delivery, "rejected", replies.rejection(rejection.reason)))
        return messages, [item.message for item in outgoing]

    async def failed(self, entry: Entry, delivery: Delivery, failure: CommandFailed) -> None:
        """Tell the requester of a command that failed for good."""
        try:
            await self.publish([self._reply(delivery, "failed", replies.failure(failure))], [])
        except Unsendable as error:
            log.error("%s: could not tell the requester of %s: %s", self._group, entry.name, error)

    def _encode(self, entry: Entry, delivery: Delivery, outgoing: Sequence[Outgoing]) -> list[Message]:
        parent = delivery.message.headers
        parent_id = parent.get(h.ID) or delivery.position
        trace = {name: parent[name] for name in (h.TRACEPARENT, h.TRACESTATE) if name in parent}
        messages = []
        # people give an order's id to its every event: what comes of one must not be taken for what comes of another
        family = f"{parent.get(h.SOURCE, '')}/{parent_id}/{delivery.message.type}/{self._group}"
        for place, item in enumerate(outgoing):
            derived = uuid.uuid5(_NAMESPACE, f"{family}/{place}")
            about = Envelope(
                source=self._service,
                id=str(derived),
                time=self._clock.now(),
                correlation_id=parent.get(h.CORRELATION) or parent.get(h.CORRELATION_ID) or parent_id,
                causation_id=parent_id,
                headers={**trace, **item.headers},
                due=None if not item.delay else self._clock.now() + item.delay,
            )
            try:
                messages.append(encode(item.message, about, self._serializer))
            except (InvalidMessage, DeclarationError) as error:
                raise Unsendable(
                    InvalidMessage(f"{entry.name} returned a message that cannot be sent: {error}")
                ) from error
        return messages

    def _reply(self, delivery: Delivery, outcome: replies.Outcome, body: replies.Body) -> Message:
        return replies.make(delivery.message.headers, self._service, self._clock.now(), outcome, body)

    def _value(self, entry: Entry, result: object) -> replies.Body:
        serializer = routing(entry.cls).serializer or self._serializer
        try:
            return replies.value(result, entry.reply, entry.name, serializer)
        except InvalidMessage as error:
            raise Unsendable(error) from error

    async def publish(self, messages: Sequence[Message], contents: Sequence[object]) -> None:
        """Until each is confirmed. Raises Unsendable for the first that never will be."""
        for error in (await self._deliver(messages, contents)).values():
            raise Unsendable(error) from error

    async def _deliver(self, messages: Sequence[Message], contents: Sequence[object]) -> dict[int, Exception]:
        """Until each is confirmed, or refused for good: those, by their place."""
        if self._instruments is None:
            return await self._insist(messages, contents)
        refused: dict[int, Exception] = {}

        async def publish(messages: Sequence[Message]) -> Sequence[Exception | None]:
            nonlocal refused
            refused = await self._insist(messages, contents)
            return [refused.get(place) for place in range(len(messages))]

        await self._instruments.send(self._place, messages, publish)
        return refused

    async def _insist(self, messages: Sequence[Message], contents: Sequence[object]) -> dict[int, Exception]:
        """The same. Repeats have the same ids."""
        refused: dict[int, Exception] = {}
        left = list(range(len(messages)))
        wait = _FIRST_WAIT
        while left:
            answers = await self._publisher.publish_batch([messages[place] for place in left])
            again = []
            for place, error in zip(left, answers, strict=True):
                if error is None:
                    self._published(messages[place], contents[place] if place < len(contents) else None)
                elif permanent(error) and (
                    messages[place].address.kind != "reply" or isinstance(error, MessageTooLarge)
                ):
                    refused[place] = error
                elif permanent(error):
                    log.warning(
                        "%s: nobody waits for the reply to %s", self._group, messages[place].headers[h.CAUSATION]
                    )
                else:
                    again.append(place)
                    log.warning("%s: %s is not published yet: %r", self._group, messages[place].type, error)
            left = again
            if left:
                await sleep(self._clock, wait)
                wait = min(wait * 2, _LONGEST_WAIT)
        return refused

    def _published(self, message: Message, content: object) -> None:
        if self._watch is not None and message.address.kind != "reply":
            what = What.PUBLISHED if message.address.kind == "topic" else What.SENT
            self._watch(Happened(what, self._service, message, content, 1, None, None))


def _changed(entry: Entry, delivery: Delivery, outgoing: list[Outgoing]) -> list[Outgoing]:
    """As they leave `Service(outgoing=...)`. Raises Unsendable where one of these functions fails."""
    functions = entry.surroundings.outgoing
    if not functions or not outgoing:
        return outgoing
    parent = frozen(delivery)
    return [_through(functions, item, parent, entry.name) for item in outgoing]


def _through(functions: Sequence[OutgoingMiddleware], item: Outgoing, parent: Delivery, who: str) -> Outgoing:
    name = type(item.message).__name__
    for function in functions:
        what = getattr(function, "__qualname__", repr(function))
        try:
            item = function(item, parent)
        except Exception as error:
            raise Unsendable(InvalidMessage(f"{what} failed with {name} of {who}: {brief(error)}")) from error
        if not isinstance(item, Outgoing):
            raise Unsendable(InvalidMessage(f"{what} gave {type(item).__name__} for {name}: it is to give an Outgoing"))
    try:
        h.check(item.headers)
        check_delay(item.delay)
    except (InvalidMessage, DeclarationError) as error:
        raise Unsendable(InvalidMessage(f"{name} of {who}, as Service(outgoing=...) made it: {error}")) from error
    return item


def _returned(entry: Entry, result: object) -> Sequence[Event | Command[Any]]:
    if result is None:
        return ()
    items: Sequence[Any] = [*result] if isinstance(result, list | tuple) else [result]
    for item in items:
        if not isinstance(item, Event | Command):
            raise Unsendable(
                InvalidMessage(
                    f"{entry.name} returned {type(item).__name__}: a handler returns an event, a command, a list of "
                    "them, or None"
                )
            )
    return items
