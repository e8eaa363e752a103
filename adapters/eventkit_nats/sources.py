"""The sources of a group: how they share its room, and how they are kept open."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import NamedTuple, TypeAlias

from eventkit.adapter import Group
from eventkit.errors import NotProvisioned
from eventkit_nats.browse import time_of
from eventkit_nats.exchange import Exchange, judged
from eventkit_nats.link import Link
from eventkit_nats.pull import LONG, SHORT, Pull
from eventkit_nats.settle import Settling, sequence, stored
from eventkit_nats.topology import Topology

log = logging.getLogger("eventkit.nats")

Arrive: TypeAlias = Callable[[Pull, bytes, bytes, bytes, bytes | None], None]

_RESERVE = 16
"""One part in so many of the room is on order at sources that bring nothing, so that they can begin at once."""
_BUSY = 1.0
"""Seconds for which a source that brought something counts as busy."""
_SOON = 0.01
"""Seconds after which even a small room is asked to be filled."""
_TROUBLE = 2.0
"""Seconds that a question about a source in trouble may take."""
_FORGOTTEN = 1.0
"""Seconds that a stop waits at most until the server has forgotten our requests."""
_RESTORE = 10.0
"""Seconds to make again what was deleted."""
_SAME = timedelta(milliseconds=1)
"""How far apart two ways to write the time of one message may be."""
_PAUSES = (0.2, 2.0)
"""Seconds between two attempts to begin a source anew: first, at most."""


class _Found(NamedTuple):
    """A stream and its durable, as they are now."""

    created: str
    made: str
    lost: Collection[bytes]
    """What is in hand of it and it does not hold any more, by the subjects of the acknowledgements."""


class Leaving(NamedTuple):
    """Sources that are no longer listened to."""

    waiting: Sequence[Pull]
    """Those at which the server still may hold requests."""
    sids: Sequence[int]


class Sources:
    """Pulls on all durables of a group. What is asked for and what is in hand together never pass `in_flight`, but for
    one of each durable but the first: so that a request can wait at each, however little may be held."""

    def __init__(
        self,
        link: Link,
        exchange: Exchange,
        topology: Topology,
        group: Group,
        in_flight: int,
        arrive: Arrive,
        ask_small: Callable[[], None],
        settling: Settling,
    ) -> None:
        self.pulls: list[Pull] = []
        self._link = link
        self._exchange = exchange
        self._topology = topology
        self._group = group
        self.in_flight = in_flight
        self._arrive = arrive
        self._ask_small = ask_small
        self._settling = settling
        self._began = datetime.now(UTC)
        self._wait = LONG
        """Seconds that a request stands: no longer than a lease, since one whose process stands still goes on to take
        messages that others could have."""
        self._loop = asyncio.get_running_loop()
        self._first = 0
        self._soon: asyncio.TimerHandle | None = None
        self._reviving: dict[Pull, asyncio.Task[None]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._been_down = False
        self._downs = 0
        self._ended = False

    async def find(self) -> float:
        """The durables. Returns the lease they give, in seconds; NotProvisioned, if one is missing."""
        leases: list[float] = []
        for address in (*self._group.sources, self._group.retry):
            place = await self._topology.place(address)
            durable = self._topology.durable(self._group.name, address)
            info = await self._topology.consumer(place, durable)
            leases.append(info["config"]["ack_wait"] / 1e9)
            pull = Pull(self._link, self._exchange.prefix, place, durable, address)
            pull.made = info["created"]
            pull.created = await self._topology.created(place)
            self.pulls.append(pull)
        lease = min(leases)
        self._wait = min(LONG, max(lease, SHORT))
        return lease

    @property
    def error(self) -> Exception | None:
        return next((pull.error for pull in self.pulls if pull.error is not None), None)

    def up(self) -> None:
        for pull in self.pulls:
            if not pull.open and not pull.doubted:
                pull.listen(functools.partial(self._arrive, pull), self._loop.time())
        if self._been_down:
            self._been_down = False
            self._looking = self._loop.create_task(self._look_again())

    def down(self) -> None:
        self._been_down = True
        self._downs += 1
        for pull in self.pulls:
            pull.lost()
            self._doubt(pull)

    def leave(self) -> Leaving:
        """Ask for no more. `left` has then to be waited for."""
        waiting = [pull for pull in self.pulls if pull.requested]
        return Leaving(waiting, [sid for pull in self.pulls if (sid := pull.leave()) is not None])

    async def left(self, leaving: Leaving, seconds: float) -> None:
        """What the server sent before it knew comes before this returns, and it holds no request of ours any more."""
        try:
            if leaving.sids and seconds > 0 and self._link.up.is_set():
                await self._exchange.fence(seconds)
                await self._forgotten(leaving.waiting, min(seconds, _FORGOTTEN))
        finally:
            for sid in leaving.sids:
                self._link.forget(sid)

    async def end(self, deadline: float) -> None:
        """No more arrivals, for good."""
        self._ended = True
        if self._soon is not None:
            self._soon.cancel()
        for task in self._reviving.values():
            task.cancel()
        if self._looking is not None:
            self._looking.cancel()
        await self.left(self.leave(), deadline - self._loop.time())

    async def _forgotten(self, pulls: Sequence[Pull], seconds: float) -> None:
        """Have the server drop requests whose subject nobody listens to: it does so when it is asked about a consumer.

        Else it takes the first message that is given back for such a request, finds out, and puts it behind the others.
        """
        told = [self._exchange.question(f"CONSUMER.INFO.{pull.place.stream}.{pull.durable}") for pull in pulls]
        with suppress(Exception):  # only the order depends on it
            await self._exchange.ask(told, seconds)

    # Asking for more

    def brought(self, pull: Pull, now: float) -> None:
        pull.busy_until = now + _BUSY

    def ask(self, in_hand: int, *, small: bool = False) -> None:
        """Fill the room that is left. `small`: even if that is not worth a question yet."""
        if self._ended or not self._link.up.is_set():
            return
        pulls = self.pulls
        now = self._loop.time()
        requested = busy = 0
        for pull in pulls:
            requested += pull.requested
            busy += pull.busy_until > now
        many = len(pulls)
        most = self.in_flight + many - 1
        free = most - in_hand - requested
        if free <= 0:
            return
        base = max(1, self.in_flight // (_RESERVE * many))
        extra = most - base * many
        self._first = (self._first + 1) % many
        for pull in chain(pulls[self._first :], pulls[: self._first]):
            hot = extra > 0 and pull.busy_until > now
            target = base + extra // busy if hot else base
            if pull.requested * 2 > target or not pull.open:
                continue
            batch = min(target - pull.requested, free)
            if not small and batch < target // 8:
                if self._soon is None:
                    self._soon = self._loop.call_later(_SOON, self._ask_soon)
                continue
            pull.ask(batch, SHORT if hot else self._wait, now)
            free -= batch
            if free <= 0:
                return

    def _ask_soon(self) -> None:
        self._soon = None
        self._ask_small()

    # Keeping them open

    def status(self, pull: Pull, subject: bytes, headers: bytes) -> None:
        """What the server says of a request."""
        trouble = pull.status(subject, headers, self._loop.time())
        if trouble is not None:
            self._revive(pull, trouble)
        else:
            self._well(pull)

    def check(self, now: float) -> None:
        """Those that fell silent begin anew."""
        for pull in self.pulls:
            if pull.silent(now):
                self._revive(pull, "the server says nothing any more")

    def _revive(self, pull: Pull, why: str) -> None:
        if pull not in self._reviving and not self._ended:
            self._doubt(pull)
            task = self._loop.create_task(self._begin_anew(pull, why))
            self._reviving[pull] = task

    async def _begin_anew(self, pull: Pull, why: str) -> None:
        pause, most = _PAUSES
        try:
            sid = pull.leave()
            if sid is not None:
                await self._exchange.fence(_TROUBLE)
                self._link.forget(sid)
            while True:
                downs = self._downs
                try:
                    found = await self._look(pull)
                    if downs == self._downs:
                        break
                except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                    if pull.error is None:
                        log.warning(
                            "NATS: group %s cannot read %s (%s): %s", self._group.name, pull.address, why, error
                        )
                    pull.error = error
                    if isinstance(error, NotProvisioned) and await self._restored(pull):
                        continue
                await asyncio.sleep(pause)
                pause = min(pause * 2, most)
        finally:
            del self._reviving[pull]
        self._well(pull)
        self._see(pull, found)
        if self._link.up.is_set() and not self._ended:
            self.up()
            self._ask_small()

    async def _look_again(self) -> None:
        """The link was down: a server may have lost its data meanwhile, and others have made the streams again."""
        downs, pulls = self._downs, [pull for pull in self.pulls if pull not in self._reviving]
        answers = await asyncio.gather(*map(self._look, pulls), return_exceptions=True)
        if downs != self._downs:
            return  # it was down once more: what was said before that says nothing now
        for pull, found in zip(pulls, answers, strict=True):
            if isinstance(found, BaseException):  # it is gone, or nobody answers for it yet
                self._revive(pull, f"{type(found).__name__}: {found}")
            else:
                self._see(pull, found)
        self.up()
        self._ask_small()

    def _doubt(self, pull: Pull) -> None:
        pull.doubted = True
        self._settling.doubt(pull.mark)

    async def _look(self, pull: Pull) -> _Found:
        """NotProvisioned, if its durable is missing."""
        made = (await self._topology.consumer(pull.place, pull.durable, _TROUBLE))["created"]
        info = await self._exchange.api(f"STREAM.INFO.{pull.place.stream}", timeout=_TROUBLE)
        known = self._settling.known(pull.mark) if info["created"] == pull.created else []
        lost = await self._lost(pull, known[-1:], info["state"]["last_seq"])
        if lost:
            lost = await self._lost(pull, known, info["state"]["last_seq"])
        return _Found(info["created"], made, lost)

    async def _lost(self, pull: Pull, replies: Sequence[bytes], last: int) -> set[bytes]:
        """Those that are past its `last`, or in whose place the stream holds another message. What is only missing was
        settled by somebody, or too old."""
        about = [(reply, sequence(reply)) for reply in replies]
        get = f"STREAM.MSG.GET.{pull.place.stream}"
        answers = await self._exchange.ask([self._exchange.question(get, {"seq": at}) for _, at in about], _TROUBLE)
        lost = {reply for reply, at in about if at > last}
        for (reply, _), answer in zip(about, answers, strict=True):
            with suppress(Exception):  # it is missing, or we may not ask
                if abs(time_of(judged(answer)["message"]["time"]) - stored(reply)) > _SAME:
                    lost.add(reply)
        return lost

    def _see(self, pull: Pull, found: _Found) -> None:
        """This is its stream now."""
        if found.lost:
            pull.newest, pull.floor = 0, None
            self._settling.lose(found.lost)
            log.warning(
                "NATS: the stream of %s has lost its end, and %d messages that group %s has or had in hand: these are "
                "handled all the same, and their retries and dead letters are written; some may be repeats",
                *(pull.address, len(found.lost), self._group.name),
            )
        if found.created != pull.created:
            pull.created, pull.newest, pull.floor = found.created, 0, None
            self._settling.orphan(pull.mark, time_of(found.created))
            log.warning(
                "NATS: the stream of %s is another than the one that group %s has read: what is in hand of the old one "
                "is handled all the same, and its retries and dead letters are written; some may be repeats",
                *(pull.address, self._group.name),
            )
        if found.made != pull.made:
            pull.made = found.made
            self._settling.anew(pull.mark)
        pull.doubted = False
        self._settling.trust(pull.mark)  # before anything is asked for

    async def _restored(self, pull: Pull) -> bool:
        """Was it deleted, and is it there again, from where we were?"""
        goes_on = self._settling.oldest(pull.mark) or (pull.newest and pull.newest + 1)
        if pull.floor is not None:  # others may have more in hand, or have died with it
            goes_on = min(goes_on or pull.floor + 1, pull.floor + 1)
        try:
            async with asyncio.timeout(_RESTORE):
                made = await self._topology.restore(self._group, pull.address, pull.created, goes_on, self._began)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
            pull.error = error
            return False
        if made:
            pull.newest = 0
            log.error(
                "NATS: what group %s reads %s by was deleted, and is made again. It goes on where the group was: what "
                "was in hand, and what was settled in the last seconds, comes again.",
                self._group.name,
                pull.address,
            )
        return made

    def _well(self, pull: Pull) -> None:
        if pull.error is not None:
            pull.error = None
            log.info("NATS: group %s reads %s again", self._group.name, pull.address)
