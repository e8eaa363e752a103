"""Once, on Redis: what was handled is remembered by a Redis server, for all replicas.

```python
store = RedisStore(redis.asyncio.Redis.from_url("redis://localhost:6379"))


@service.handler(once=store)
async def book(event: OrderPlaced) -> ParcelBooked: ...
```

While a handler runs, the message is claimed for a lease, which is renewed; when it has returned, the mark is made, with
what is to be sent. A crash between the handler's own effects and the mark has the message handled again: only a store
in the same transaction as those effects leaves no such window (`eventkit.sql`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from eventkit.errors import DeclarationError
from eventkit.names import logical
from eventkit.once import RETENTION, Begun, Busy, Handled, Mark, Publish, check_retention
from eventkit.packed import pack, unpack

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("eventkit")

_CLAIMED = "claimed:"
_SHORTEST_LEASE = timedelta(seconds=1)

_CLAIM = """
local found = redis.call('GET', KEYS[1]) or redis.call('GET', KEYS[2])
if not found then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return found
"""
_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_GIVE_BACK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
_SENT = """
local left = redis.call('PTTL', KEYS[1])
if left > 0 then redis.call('SET', KEYS[1], ARGV[1], 'PX', left) end
return left
"""


class RedisStore:
    """Remembers on a Redis server (6.2 or newer, a cluster too), one key for each message that was handled.

    `client` stays yours to close; give it a `socket_timeout`. `retention`: how long a repeat is known as one; Redis
    forgets by itself. `lease`: how long after a crash in the middle of a handler its message can be tried again, and
    after which of two replicas that both lost sight of the server both may handle it. `prefix` stands before all keys.
    """

    session_of: ClassVar[Literal["async", "plain"] | None] = None

    def __init__(
        self,
        client: Redis,
        *,
        retention: timedelta = RETENTION,
        lease: timedelta = timedelta(seconds=30),
        prefix: str = "eventkit.once",
    ) -> None:
        if not isinstance(lease, timedelta) or lease < _SHORTEST_LEASE:
            raise DeclarationError(f"RedisStore(lease={lease!r}): a timedelta of at least 1 s; it is renewed in time")
        self._client = client
        self._retention = _milliseconds(check_retention("RedisStore", retention))
        self.lease = lease.total_seconds()
        self._prefix = logical(prefix, f"RedisStore(prefix={prefix!r})")

    def running(self, publish: Publish, /) -> AbstractAsyncContextManager[object]:
        return nullcontext()

    async def begin(self, mark: Mark, /) -> Begun:
        key, of_any = self._keys(mark)
        token = _CLAIMED + secrets.token_hex(8)
        try:
            found = await self._client.eval(_CLAIM, 2, key, of_any, token, int(self.lease * 1_000))
        except asyncio.CancelledError:
            await self.give_back(key, token)  # it may have been claimed for nobody
            raise
        if found is None:
            return _Claim(self, key, token)
        said = found.decode() if isinstance(found, bytes) else str(found)
        return Busy() if said.startswith(_CLAIMED) else _read(said)

    async def sent(self, mark: Mark, /) -> None:
        for key in dict.fromkeys(self._keys(mark)):
            found = await self._client.get(key)
            if found is None:
                continue
            said = found.decode() if isinstance(found, bytes) else found
            if not said.startswith(_CLAIMED):
                await self.eval(_SENT, key, _written(Handled((), _read(said).answer)))
            return

    async def keep(self, key: str, done: Handled) -> None:
        """It is handled, whoever holds the claim meanwhile."""
        await self._client.set(key, _written(done), px=self._retention)

    async def give_back(self, key: str, token: str) -> None:
        """The claim ends, if it is still this one; else its lease ends it."""
        try:
            await self.eval(_GIVE_BACK, key, token)
        except Exception as error:  # noqa: BLE001 whatever the client raises
            log.warning(
                "RedisStore: a claim could not be given back; its message waits for %g s: %r", self.lease, error
            )

    async def renew(self, key: str, token: str) -> bool:
        """False: it is no longer ours."""
        return bool(await self.eval(_RENEW, key, token, int(self.lease * 1_000)))

    async def eval(self, script: str, key: str, *arguments: Any) -> Any:
        return await self._client.eval(script, 1, key, *arguments)

    def _keys(self, mark: Mark) -> tuple[str, str]:
        """Its own key, and that of any type: in one slot of a cluster, by what stands in braces."""
        of_any = f"{self._prefix}:{mark.group}:{mark.of_any}"
        if not mark.type:
            return of_any, of_any
        return f"{self._prefix}:{mark.group}:{mark.key[:16]}:{{{of_any}}}", of_any


class _Claim:
    """An attempt, while its lease is renewed."""

    def __init__(self, store: RedisStore, key: str, token: str) -> None:
        self._store = store
        self._key = key
        self._token = token
        self._open = True
        self._renewing: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(store.lease / 3, self._renew)

    async def commit(self, done: Handled, /) -> None:
        if self._open:
            await self._store.keep(self._key, done)
            self._end()

    async def abort(self, error: BaseException, /) -> None:
        if self._open:
            self._end()
            await self._store.give_back(self._key, self._token)

    def _end(self) -> None:
        self._open = False
        self._timer.cancel()

    def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        self._renewing = loop.create_task(self._ask(), name="eventkit once lease")
        self._timer = loop.call_later(self._store.lease / 3, self._renew)

    async def _ask(self) -> None:
        try:
            ours = await self._store.renew(self._key, self._token)
        except Exception as error:  # noqa: BLE001 whatever the client raises, the next one may come through
            log.warning("RedisStore: a lease could not be renewed: %r", error)
            return
        if not ours and self._open:
            self._timer.cancel()
            log.warning("RedisStore: a handler's lease was lost; another replica may handle its message, too")


def _written(done: Handled) -> str:
    answer = None if done.answer is None else pack(done.answer)
    return json.dumps([[pack(message) for message in done.outgoing], answer])


def _read(said: str) -> Handled:
    outgoing, answer = json.loads(said)
    return Handled(tuple(map(unpack, outgoing)), None if answer is None else unpack(answer))


def _milliseconds(span: timedelta) -> int:
    return int(span.total_seconds() * 1_000)


__all__ = ["RedisStore"]
