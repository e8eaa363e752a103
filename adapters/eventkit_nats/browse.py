"""Looking into a stream, deleting from it, counting in it: all without disturbing who reads it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from nats.js.errors import APIError, NotFoundError

from eventkit.adapter import Address, Backlog, Delivery, Group, Waiting
from eventkit.errors import NotProvisioned
from eventkit_nats import readers
from eventkit_nats.codec import decode
from eventkit_nats.exchange import Exchange, judged
from eventkit_nats.link import Link
from eventkit_nats.subjects import Subjects
from eventkit_nats.topology import Place, Topology

_BATCH = 64
"""Messages asked for at once, one question each: works on every server, and on streams without direct access."""
_GONE = (10037, 10043, 10057)
"""No such message: looked for, to be deleted, and on older servers."""
_sequence = re.compile(rb"Nats-Sequence: *(\d+)").search


class Kept(NamedTuple):
    """The token of a delivery that was looked at."""

    stream: str
    sequence: int


class Browser:
    def __init__(self, link: Link, exchange: Exchange, topology: Topology, subjects: Subjects) -> None:
        self._link = link
        self._exchange = exchange
        self._topology = topology
        self._subjects = subjects

    async def browse(self, address: Address) -> AsyncIterator[Delivery]:
        """What is there now, oldest first."""
        place = await self._topology.place(address)
        try:
            state = (await self._exchange.api(f"STREAM.INFO.{place.stream}"))["state"]
        except NotFoundError as error:
            raise NotProvisioned(f"stream {place.stream!r} for {address} is missing") from error
        sequence, last = max(1, state["first_seq"]), state["last_seq"]
        while sequence <= last:
            found = await self._some(place, sequence, last)
            for kept in found:
                yield _delivery(address, place, kept)
            if not found:
                return
            sequence = found[-1]["seq"] + 1

    async def remove(self, deliveries: Sequence[Delivery]) -> list[Exception | None]:
        """One that is gone already is no error."""
        answers: list[Exception | None] = []
        questions = []
        for delivery in deliveries:
            if not isinstance(delivery.token, Kept):
                raise TypeError("remove() takes what browse() gave")
            stream, sequence = delivery.token
            questions.append(
                self._exchange.question(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})
            )
        for answer in await self._exchange.ask(questions):
            try:
                judged(answer)
            except Exception as error:  # noqa: BLE001 - it becomes the answer
                answers.append(None if _is_gone(error) else error)
            else:
                answers.append(None)
        return answers

    async def measure(self, group: Group, retrying: int) -> Backlog:
        """`retrying`: how many of the retry stream are in hand here. Those in other processes count as delayed."""
        sources = [source for source in group.sources if source.kind != "reply"]
        if group.sources and not sources:  # replies alone; without any source the rest can be said
            return Backlog(None, None, None, None)
        retry, dead, infos = await asyncio.gather(
            self._count(group.retry), self._count(group.dead), self._infos(group.name, sources)
        )
        consumers = await self.consumers(group, infos)
        found = dict(
            zip(
                sources,
                await asyncio.gather(*(self._waiting(*at, consumers) for at in zip(sources, infos, strict=True))),
                strict=True,
            )
        )
        return Backlog(
            ready=sum(waiting.ready or 0 for waiting in found.values()),
            in_flight=sum(waiting.in_flight or 0 for waiting in found.values()) + retrying,
            delayed=max(0, retry - retrying),
            dead=dead,
            oldest=max((waiting.oldest for waiting in found.values() if waiting.oldest is not None), default=None),
            consumers=consumers,
            sources=found,
        )

    async def consumers(self, group: Group, infos: Sequence[Mapping[str, Any]] = ()) -> int:
        """How many read the group: those that answer, or one where requests stand that somebody must have made.
        `infos`: what is known of its durables."""
        answered = await readers.ask(self._link, self._exchange, self._subjects, group.name)
        if answered:
            return answered
        with contextlib.suppress(NotProvisioned):
            infos = [*infos, *await self._infos(group.name, [group.retry])]
        return int(any(info["num_waiting"] for info in infos))

    async def _infos(self, group: str, addresses: Sequence[Address]) -> list[dict[str, Any]]:
        """What the server says of the group's durables there."""
        places = await asyncio.gather(*map(self._topology.place, addresses))
        durables = [self._topology.durable(group, address) for address in addresses]
        return await asyncio.gather(*map(self._topology.consumer, places, durables))

    async def _waiting(self, address: Address, info: Mapping[str, Any], consumers: int) -> Waiting:
        """What was delivered to those that are gone is ready."""
        ready, in_flight, after = info["num_pending"], info["num_ack_pending"], info["delivered"]["stream_seq"]
        if not consumers:
            ready, in_flight, after = ready + in_flight, 0, info["ack_floor"]["stream_seq"]
        oldest = await self._oldest(await self._topology.place(address), after + 1) if ready else None
        return Waiting(ready, in_flight, oldest)

    async def _count(self, address: Address) -> int:
        place = await self._topology.place(address)
        try:
            messages: int = (await self._exchange.api(f"STREAM.INFO.{place.stream}"))["state"]["messages"]
        except NotFoundError as error:
            raise NotProvisioned(f"stream {place.stream!r} for {address} is missing") from error
        return messages

    async def _oldest(self, place: Place, sequence: int) -> timedelta | None:
        try:
            found = await self._exchange.api(
                f"STREAM.MSG.GET.{place.stream}", {"seq": sequence, "next_by_subj": place.filter or ">"}
            )
        except APIError:
            return None
        return max(timedelta(0), datetime.now(UTC) - time_of(found["message"]["time"]))

    async def _some(self, place: Place, sequence: int, last: int) -> list[dict[str, Any]]:
        """The next ones from `sequence`, as the server keeps them; none is left out, none is past `last`."""
        what, filter_ = f"STREAM.MSG.GET.{place.stream}", place.filter or ">"
        wanted = range(sequence, min(sequence + _BATCH, last + 1))
        if place.filter is None:
            answers = await self._exchange.ask([self._exchange.question(what, {"seq": number}) for number in wanted])
            found = [kept for kept in map(_found, answers) if kept is not None]
            if found:
                return found
        # a gap, or a stream that others share: ask where it goes on
        try:
            kept = (
                await self._exchange.api(
                    what, {"seq": wanted[-1] + 1 if place.filter is None else sequence, "next_by_subj": filter_}
                )
            )["message"]
        except APIError as error:
            if _is_gone(error):
                return []
            raise
        return [kept] if kept["seq"] <= last else []


def _found(answer: bytes | Exception) -> dict[str, Any] | None:
    try:
        message: dict[str, Any] = judged(answer)["message"]
    except APIError as error:
        if _is_gone(error):
            return None
        raise
    return message


def _is_gone(error: Exception) -> bool:
    return isinstance(error, NotFoundError) or (isinstance(error, APIError) and error.err_code in _GONE)


def _delivery(address: Address, place: Place, kept: dict[str, Any]) -> Delivery:
    headers = base64.b64decode(kept["hdrs"]) if "hdrs" in kept else None
    body = base64.b64decode(kept.get("data", ""))
    sequence: int = kept["seq"]
    return Delivery(decode(address, headers, body), str(sequence), None, Kept(place.stream, sequence))


def time_of(text: str) -> datetime:
    """RFC 3339 with nanoseconds, or fewer digits."""
    whole, _, rest = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{rest[:6]:0<6}+00:00")
