"""Reading one group: its topics, its inbox and its retry stream, over a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from redis.exceptions import RedisError, ResponseError

from eventkit.adapter import Delivery, Group, Receive, Settlement
from eventkit_redis import scripts as lua
from eventkit_redis.delay import Ripener
from eventkit_redis.fetch import Fetch
from eventkit_redis.keys import Keys
from eventkit_redis.lease import Leases
from eventkit_redis.link import Link, command, script
from eventkit_redis.readers import Presence
from eventkit_redis.settings import RedisSettings
from eventkit_redis.settle import FREE, FREE_IDLE, Settler
from eventkit_redis.source import Source, Token
from eventkit_redis.trim import Trimmer, Warden

log = logging.getLogger("eventkit.redis")

BLOCK: Final = 1.0
"""Seconds that a read waits for a message: shorter than any time limit of the connection."""
_BREATH: Final = 0.001
_LONGEST_PAUSE: Final = 2.0
_PAGE: Final = 100
"""Messages of a stream that are taken over by one command."""


class Links(NamedTuple):
    """The connections of one consumer."""

    writing: Link
    upkeep: Link
    reading: Link
    """Its own: a read that waits holds up all that comes behind it."""
    settings: RedisSettings
    takes: int
    """The largest value that this Redis takes, in bytes."""


class StreamConsumer:
    """The consumer of one group in this process."""

    def __init__(
        self, group: Group, receive: Receive, links: Links, keys: Keys, trimmer: Trimmer, client: str, *, in_flight: int
    ) -> None:
        settings = links.settings
        self._group = name = keys.group(group)
        self._consumer = me = f"{client}-{uuid.uuid4().hex[:8]}"
        self._sources = sources = [Source(address, keys) for address in (*group.sources, group.retry)]
        self._link = links.reading
        self._upkeep = links.upkeep
        retry = keys.stream(group.retry)
        self._ripener = Ripener(links.upkeep, keys, group.name, retry)
        self._settler = Settler(links.writing, keys, name, me, receive, links.takes)
        self._settler.own = frozenset((retry, keys.stream(group.dead)))
        self._settler.parked = self._ripener.look
        self._leases = Leases(links.upkeep, name, me, sources, settings)
        self._settler.freed = self._leases.freed = self._freed
        self._leases.gone = self._lost
        self._settler.sure = self._leases.sure
        self._presence = Presence(links.upkeep, keys.readers(group.name), me)
        self._warden = Warden(links.upkeep, keys, trimmer, name, sources)
        self._receive = receive
        self._batch = settings.batch
        self._in_flight = in_flight
        self._unsettled = 0
        self._starved = False
        self._space = asyncio.Event()
        self._going = asyncio.Event()
        self._going.set()
        self._handing = False
        self._stopping = False
        self._stopped = False
        self._error: Exception | None = None
        self._client_id: int | None = None
        interval = settings.lease.total_seconds() / 3
        self._fetch = Fetch(name, me, sources, settings.batch, block=int(min(BLOCK, interval) * 1000))
        self._interval = min(BLOCK, interval)
        self._quiet = interval
        """After a reconnection the others get that long to renew what they hold, before it is taken over."""
        self._next_take_over = 0.0
        self._free = list(sources)
        """Of these what was given back is fetched before anything new, which was published later."""
        self._tasks: list[asyncio.Task[None]] = []
        self._dropping: set[asyncio.Task[None]] = set()
        self.recreated = 0
        """How often the group was gone from Redis and made again."""
        self.vanished = 0
        """Messages that were deleted or trimmed while they were pending."""

    @property
    def error(self) -> Exception | None:
        return self._link.error or self._error

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        names = {"read": self._run, "lease": self._leases.run, "due": self._ripener.run, "trim": self._warden.run}
        names["here"] = self._presence.run
        self._tasks = [
            loop.create_task(self._lasting(name, run), name=f"eventkit-redis-{name}-{self._group}")
            for name, run in names.items()
        ]

    def _freed(self, count: int) -> None:
        self._unsettled -= count
        if self._starved:
            self._starved = False
            self._space.set()

    def _lost(self, tokens: Sequence[Token]) -> None:
        """Others have these: what has not begun runs there, and not here, too."""
        gone = {id(token): token for token in tokens}
        drop = self._receive.revoked(lambda delivery: id(delivery.token) in gone, None)
        task = asyncio.get_running_loop().create_task(drop, name=f"eventkit-redis-drop-{self._group}")
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    def settle(self, delivery: Delivery, how: Settlement) -> None:
        self._settler.settle(delivery, how)

    async def flush(self, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            await self._settler.drain()

    def hold(self, at_most: int, /) -> None:
        self._in_flight = at_most
        self._freed(0)

    def pause(self) -> None:
        self._going.clear()

    def resume(self) -> None:
        self._going.set()

    async def stop(self, timeout: float) -> None:
        if self._stopped:
            return
        self._stopped = self._stopping = True
        try:
            async with asyncio.timeout(timeout):
                await self._end_reading()
                await self._settler.drain()
                await self._leave()
        except (TimeoutError, RedisError, OSError) as error:
            log.warning(
                "consumer of group %s stopped without giving back all it held (another takes it over later): %s",
                *(self._group, error or "no time left"),
            )
        finally:
            tasks = [*self._tasks, *self._dropping]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._settler.stop()
            for source in self._sources:
                source.held.clear()
                source.moving.clear()
            await self._link.close()

    async def _end_reading(self) -> None:
        """End the read that waits on the server: cut off, it might still be given a message that nobody reads."""
        reading = self._tasks[0]
        self._going.set()  # a paused reader has a read on the server too; what it brings is given back with the rest
        if self._handing or self._starved or self._link.error is not None:
            reading.cancel()
        elif self._client_id is not None:
            with contextlib.suppress(ResponseError):
                await self._upkeep.ask(command("CLIENT", "UNBLOCK", self._client_id))
        done, _ = await asyncio.wait((reading,), timeout=BLOCK + 0.5)
        if not done:
            reading.cancel()
            await asyncio.wait((reading,))

    async def _leave(self) -> None:
        wire = [
            script(lua.LEAVE, (source.key,), self._group, self._consumer, FREE, FREE_IDLE) for source in self._sources
        ]
        await self._link.ask(*wire, self._presence.leave())

    async def _lasting(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """An error that nobody thought of is said, turns health red, and ends no task of ours."""
        while True:
            try:
                await run()
            except Exception as error:
                self._error = error
                log.exception("the %s task of group %s failed and is started again", name, self._group)
                await asyncio.sleep(1.0)
            else:
                return

    async def _run(self) -> None:
        generation = 0
        pause = 0.05
        while not self._stopping:
            try:
                if generation != self._link.generation:
                    generation = self._link.generation
                    await self._connected(again=generation > 1)
                room = await self._room()
                if self._stopping:
                    break
                if self._free:
                    await self._take_free(room)
                    continue
                if asyncio.get_running_loop().time() < self._next_take_over or not await self._take_over(room):
                    await self._read(room)
                self._error, pause = None, 0.05
            except ResponseError as error:
                if "NOGROUP" in str(error) or "UNBLOCKED" in str(error):
                    await self._recreate(error)
                    continue
                if self._error is None:
                    log.warning("group %s cannot be read, trying again: %s", self._group, error)
                self._error = error
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except (RedisError, OSError, TimeoutError):
                if self._link.error is None:
                    await asyncio.sleep(pause)
                await self._link.wait_up()

    async def _connected(self, *, again: bool) -> None:
        try:
            (self._client_id,) = await self._link.ask(command("CLIENT", "ID"))
        except ResponseError:
            self._client_id = None  # not permitted: stopping waits for the read to end by itself
        topics = [source.key for source in self._sources if source.address.kind == "topic"]
        for topic in topics:
            with contextlib.suppress(ResponseError):  # not permitted, or not known (6.2): only a number is less true
                await self._link.ask(script(lua.RECKON, (topic,), self._group))
        if not again:
            return
        await self._leases.renew(self._link)
        self._next_take_over = asyncio.get_running_loop().time() + self._quiet
        for source in self._sources:
            await self._recover(source)

    async def _recover(self, source: Source) -> None:
        """Messages that were ours when the connection broke and never arrived."""
        (found,) = await self._link.ask(
            script(lua.OWN, (source.key,), self._group, self._consumer, len(source.leased()) + self._batch)
        )
        lost = [entry for entry in found if not source.ours(entry)]
        if lost:
            (entries,) = await self._link.ask(script(lua.CLAIM, (source.key,), self._group, self._consumer, *lost))
            await self._hand_over(self._fetch.again(source, entries))

    async def _room(self) -> int:
        """How many may be fetched. Waits for some, and a moment for more than a few: a read costs the same for many.

        One of each stream at least: a read that waits for some of them alone would keep the others waiting.
        """
        while True:
            await self._going.wait()
            room = self._in_flight - self._unsettled
            if 0 < room * 4 < self._in_flight:
                await asyncio.sleep(_BREATH)
                room = self._in_flight - self._unsettled
            if room > 0:
                return max(room, len(self._sources))
            self._space.clear()
            self._starved = True
            await self._space.wait()

    async def _take_free(self, room: int) -> None:
        """What was given back when we came, by a process that was stopped before us."""
        sources = self._free[:room]
        share = min(_PAGE, room // len(sources))
        about = (self._group, self._consumer, FREE, share)
        wire = [script(lua.TAKE_FREE, (source.key,), *about) for source in sources]
        batch: list[Delivery] = []
        replies, refused = await self._each(wire)
        for source, reply in zip(sources, replies, strict=True):
            if reply is None:
                continue
            ids, entries = reply
            batch += self._fetch.again(source, entries)
            found = {entry for entry, _, _ in entries}
            self._say_gone(source, [entry for entry in ids if entry not in found])
            if len(ids) < share:
                self._free.remove(source)
        await self._hand_over(batch)
        if refused is not None:
            raise refused

    async def _each(self, wire: Sequence[bytes]) -> tuple[list[Any], Exception | None]:
        """The replies, None where there is none, and why not. What some brought is ours, though others are refused."""
        call = self._link.call(wire, len(wire), 10.0)
        await call.future
        replies = [None if isinstance(reply, Exception) else reply for reply in call.replies]
        replies += [None] * (len(wire) - len(replies))
        errors = (reply for reply in call.replies if isinstance(reply, Exception))
        return replies, call.error or next(errors, None)

    def _say_gone(self, source: Source, gone: Sequence[bytes]) -> None:
        if gone:
            self.vanished += len(gone)
            log.warning(
                "%d messages of %s were deleted or trimmed before group %s had finished them, from %s to %s",
                *(len(gone), source.key, self._group, gone[0].decode(), gone[-1].decode()),
            )

    async def _take_over(self, room: int) -> int:
        """What was given back, and what consumers hold that were not heard of for a lease."""
        self._next_take_over = asyncio.get_running_loop().time() + self._interval
        taken = 0
        for _ in range(8):
            sources = self._fetch.turn(room - taken)
            share = min(_PAGE, (room - taken) // max(1, len(sources)))
            wire = [self._leases.take_over(source, share) for source in sources]
            if not wire:
                break
            batch: list[Delivery] = []
            replies, refused = await self._each(wire)
            for source, reply in zip(sources, replies, strict=True):
                if reply is None:
                    continue
                source.cursor, entries, gone = reply
                batch += self._fetch.again(source, entries)
                self._say_gone(source, gone)
            taken += len(batch)
            await self._hand_over(batch)
            if refused is not None:
                raise refused
            if all(source.cursor == b"0-0" for source in sources):
                break
        return taken

    async def _read(self, room: int) -> None:
        read = self._fetch.next(room)
        call = self._link.call((read.wire,), 1, 3600.0)  # ended by the link's own watch
        await call.future
        if call.error is not None:
            raise call.error
        reply = call.replies[0]
        if isinstance(reply, Exception):
            raise reply
        await self._hand_over(self._fetch.deliveries(read, reply))

    async def _hand_over(self, batch: list[Delivery]) -> None:
        if not batch:
            return
        self._unsettled += len(batch)
        if not self._going.is_set():
            await self._going.wait()
        if self._stopping:
            return  # given back with the rest
        self._handing = True
        try:
            await self._receive.deliveries(batch)
        finally:
            self._handing = False

    async def _recreate(self, error: Exception) -> None:
        """The streams or the group were deleted, or Redis lost its data: go on from the beginning of what is there."""
        try:
            made = await self._link.ask(
                *(script(lua.CREATE, (source.key,), self._group, "0") for source in self._sources)
            )
        except (RedisError, OSError, TimeoutError) as failure:
            self._error = failure
            await asyncio.sleep(_LONGEST_PAUSE if isinstance(failure, ResponseError) else 0.1)
            return
        gone = [source.key for source, new in zip(self._sources, made, strict=True) if new]
        if not gone:
            log.info("group %s is there again, or was there all the time: %s", self._group, error)
            return
        self.recreated += 1
        log.error(
            "group %s was gone from %s (%s): made again, from the beginning of what Redis still holds. "
            "Messages may have been lost, and others come again.",
            *(self._group, ", ".join(gone), error),
        )
