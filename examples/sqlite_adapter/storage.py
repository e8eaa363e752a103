"""The SQLite file: its tables, and what is done to them, each in one transaction.

A message is stored once, with a row in `pending` for each group that has not settled it. `free_from` in such a row says
when it may be delivered: when it is due, or when the lease of its holder ends.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from sqlite3 import Connection
from typing import Any, Concatenate, ParamSpec, TypeVar

from eventkit.adapter import Address, Backlog, Done, Message, Move, Settlement, Waiting
from eventkit.errors import Closed, MessageTooLarge, NoOwner, NotProvisioned

P = ParamSpec("P")
R = TypeVar("R")

HEADROOM = 65_536
"""Bytes that a copy may be larger than its original: it says what failed, and why."""

_TABLES = """
CREATE TABLE IF NOT EXISTS channels (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS groups (name TEXT PRIMARY KEY, until REAL);
CREATE TABLE IF NOT EXISTS subscriptions (channel TEXT, grp TEXT, PRIMARY KEY (channel, grp)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS consumers (holder TEXT PRIMARY KEY, grp TEXT, until REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT, stored REAL,
    type TEXT, key TEXT, headers TEXT, body BLOB);
CREATE INDEX IF NOT EXISTS messages_of ON messages (channel, id);
CREATE TABLE IF NOT EXISTS pending (grp TEXT, id INTEGER, free_from REAL, holder TEXT, deliveries INTEGER DEFAULT 0,
    PRIMARY KEY (grp, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pending_of ON pending (id);
"""
_OURS = "WHERE grp = ? AND id = ? AND holder = ? AND deliveries = ?"
"""The fence: an arrival that went to another holder, or to the same one again, has another row."""


class File:
    """One connection to the file, and the one thread in which it is used."""

    def __init__(self, path: str, wait: float) -> None:
        self._path, self._wait = path, wait
        self._thread: ThreadPoolExecutor | None = None
        self._db: Connection | None = None

    async def open(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="eventkit sqlite")
        opening = asyncio.get_running_loop().run_in_executor(self._thread, self._connect)
        try:
            self._db = await asyncio.shield(opening)
        except BaseException:
            opening.add_done_callback(_close_late)
            self._thread.shutdown(wait=False)
            raise

    async def read(self, work: Callable[Concatenate[Connection, P], R], /, *args: P.args, **keywords: P.kwargs) -> R:
        """Raises what SQLite raises; Closed before `open` and after `close`."""
        db = self._db
        if db is None or self._thread is None:
            raise Closed("the SQLite adapter is not started")
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(db, *args, **keywords))

    async def change(self, work: Callable[Concatenate[Connection, P], R], /, *args: P.args, **keywords: P.kwargs) -> R:
        """As `read`, in a transaction: all of it, or nothing."""

        def transaction(db: Connection) -> R:
            db.execute("BEGIN IMMEDIATE")  # waits for its turn before it reads, so that nothing it read is outdated
            try:
                result = work(db, *args, **keywords)
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
            return result

        return await self.read(transaction)

    async def close(self) -> None:
        if self._db is not None and self._thread is not None:
            closing = asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
            self._db = None
            self._thread.shutdown(wait=False)  # what waits in it is still done
            await closing

    def _connect(self) -> Connection:
        db = sqlite3.connect(self._path, timeout=self._wait, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")  # readers and a writer do not wait for each other
            db.execute("PRAGMA synchronous = FULL")  # else a loss of power takes what was confirmed
            db.executescript(_TABLES)
        except BaseException:
            db.close()
            raise
        return db


def _close_late(opening: asyncio.Future[Connection]) -> None:
    """Nobody waits for this connection any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def version(db: Connection) -> int:
    """Another one after another connection has changed the file."""
    found: int = db.execute("PRAGMA data_version").fetchone()[0]
    return found


def create(db: Connection, channels: Sequence[str], reads: Sequence[tuple[str, str]]) -> None:
    """`reads`: a group, and a channel that it reads."""
    db.executemany("INSERT OR IGNORE INTO channels VALUES (?)", [(name,) for name in channels])
    db.executemany("INSERT OR IGNORE INTO groups VALUES (?, NULL)", [(group,) for group, _ in reads])
    db.executemany("INSERT OR IGNORE INTO subscriptions (grp, channel) VALUES (?, ?)", reads)


def missing(db: Connection, channels: Sequence[str], reads: Sequence[tuple[str, str]]) -> list[str]:
    there = "SELECT 1 FROM channels WHERE name = ?"
    reading = "SELECT 1 FROM subscriptions JOIN groups ON name = grp WHERE grp = ? AND channel = ?"
    found = [name for name in channels if db.execute(there, (name,)).fetchone() is None]
    return found + [
        f"{group} on {name}" for group, name in reads if db.execute(reading, (group, name)).fetchone() is None
    ]


def publish(db: Connection, messages: Sequence[tuple[str, Message]], limit: int) -> list[Exception | None]:
    """Each with its channel. One answer each: one that is refused harms no other."""
    return [_put(db, channel, message, limit) for channel, message in messages]


def take(db: Connection, group: str, holder: str, most: int, lease: float) -> tuple[list[Any], float | None]:
    """The next messages, from now on held; and, where there is none, when one may be free (None: nothing waits)."""
    if db.execute("SELECT 1 FROM groups WHERE name = ?", (group,)).fetchone() is None:
        raise NotProvisioned(f"the group {group} is not in the file any more: start its service again")
    now = time.time()
    rows = db.execute(
        "SELECT messages.*, deliveries + 1 FROM pending JOIN messages USING (id) WHERE grp = ? AND free_from <= ? "
        "AND holder IS NOT ? ORDER BY id LIMIT ?",  # its own that are past their lease it renews
        (group, now, holder, most),
    ).fetchall()
    if not rows:
        later = "SELECT min(free_from) FROM pending WHERE grp = ? AND holder IS NOT ?"
        return [], db.execute(later, (group, holder)).fetchone()[0]
    db.executemany(
        "UPDATE pending SET holder = ?, free_from = ?, deliveries = deliveries + 1 WHERE grp = ? AND id = ?",
        [(holder, now + lease, group, row[0]) for row in rows],
    )
    return rows, None


def settle(
    db: Connection, group: str, holder: str, asked: Sequence[tuple[int, int, Settlement, str]], limit: int
) -> dict[int, Exception]:
    """Of each: its id, which arrival it was, how, and the channel of its copy. What could not be done, by its place;
    what is no longer held is passed over."""
    failed: dict[int, Exception] = {}
    for place, (id_, deliveries, how, copy_to) in enumerate(asked):
        ours = (group, id_, holder, deliveries)
        if db.execute(f"SELECT 1 FROM pending {_OURS}", ours).fetchone() is None:  # noqa: S608
            continue
        if isinstance(how, Move) and (refused := _put(db, copy_to, how.copy, limit)) is not None:
            failed[place] = refused
        elif isinstance(how, Done | Move):
            db.execute(f"DELETE FROM pending {_OURS}", ours)  # noqa: S608
            db.execute(
                "DELETE FROM messages WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM pending WHERE id = ?1)", (id_,)
            )
        else:
            db.execute(f"UPDATE pending SET holder = NULL, free_from = 0 {_OURS}", ours)  # noqa: S608
    return failed


def give_back(db: Connection, group: str, holder: str) -> None:
    """It reads no more."""
    db.execute("UPDATE pending SET holder = NULL, free_from = 0 WHERE grp = ? AND holder = ?", (group, holder))
    db.execute("DELETE FROM consumers WHERE holder = ?", (holder,))


def renew(db: Connection, group: str, holder: str, until: float) -> None:
    """The leases of all that it still holds; and it is counted until then."""
    db.execute("INSERT OR REPLACE INTO consumers VALUES (?, ?, ?)", (holder, group, until))
    db.execute("DELETE FROM consumers WHERE until < ?", (time.time(),))
    db.execute("UPDATE pending SET free_from = ? WHERE grp = ? AND holder = ?", (until, group, holder))


def keep_passing(db: Connection, name: str, channel: str, lease: float) -> None:
    """A group that lives for ten leases, unless it is kept again: what it has waiting cannot go to another one, so that
    a process which is only late must find it. Those that are past their time are cleared away."""
    create(db, [channel], [(name, channel)])
    db.execute("UPDATE groups SET until = ? WHERE name = ?", (time.time() + 10 * lease, name))
    for (gone,) in db.execute("SELECT name FROM groups WHERE until < ?", (time.time(),)).fetchall():
        close_passing(db, gone)


def close_passing(db: Connection, name: str) -> None:
    """With what only it has not settled, and with the channel of its name, if it has one."""
    alone = "id IN (SELECT id FROM pending WHERE grp = ?1) AND NOT EXISTS "
    alone += "(SELECT 1 FROM pending AS other WHERE other.id = messages.id AND grp <> ?1)"
    db.execute(f"DELETE FROM messages WHERE {alone}", (name,))  # noqa: S608
    for table, column in (("messages", "channel"), ("channels", "name"), ("groups", "name")):
        db.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))  # noqa: S608
    for table in ("pending", "subscriptions"):
        db.execute(f"DELETE FROM {table} WHERE grp = ?", (name,))  # noqa: S608


def page(db: Connection, channel: str, after: int, until: int) -> list[Any]:
    """A hundred messages of a channel, oldest first."""
    which = "WHERE channel = ? AND id > ? AND id <= ? ORDER BY id LIMIT 100"
    return db.execute(f"SELECT * FROM messages {which}", (channel, after, until)).fetchall()  # noqa: S608


def newest(db: Connection) -> int:
    found: int = db.execute("SELECT coalesce(max(id), 0) FROM messages").fetchone()[0]
    return found


def remove(db: Connection, ids: Sequence[int]) -> None:
    for table in ("messages", "pending"):
        db.executemany(f"DELETE FROM {table} WHERE id = ?", [(id_,) for id_ in ids])  # noqa: S608


def readers(db: Connection, group: str) -> int:
    """How many read a group, or did so a lease ago."""
    found: int = db.execute(
        "SELECT count(*) FROM consumers WHERE grp = ? AND until > ?", (group, time.time())
    ).fetchone()[0]
    return found


def measure(db: Connection, group: str, dead: str) -> tuple[Backlog, dict[str, Waiting]]:
    """The second by channel, where anything waits."""
    if db.execute("SELECT 1 FROM groups WHERE name = ?", (group,)).fetchone() is None:
        raise NotProvisioned(f"missing in the SQLite file: the group {group}")
    now, consumers = time.time(), readers(db, group)
    ready = "free_from <= :now OR (holder NOTNULL AND NOT :read)"  # where nobody reads, what was held is free
    rows = db.execute(
        f"SELECT channel, count(*) FILTER (WHERE {ready}), count(*) FILTER (WHERE NOT ({ready}) AND holder NOTNULL), "  # noqa: S608
        f"count(*) FILTER (WHERE NOT ({ready}) AND holder ISNULL), min(stored) FILTER (WHERE {ready}) "
        "FROM pending JOIN messages USING (id) WHERE grp = :group GROUP BY channel",
        {"now": now, "group": group, "read": bool(consumers)},
    ).fetchall()
    found = {
        channel: Waiting(ready, held, None if oldest is None else timedelta(seconds=now - oldest))
        for channel, ready, held, _, oldest in rows
    }
    backlog = Backlog(
        ready=sum(row[1] for row in rows),
        in_flight=sum(row[2] for row in rows),
        delayed=sum(row[3] for row in rows),
        dead=db.execute("SELECT count(*) FROM messages WHERE channel = ?", (dead,)).fetchone()[0],
        oldest=max((one.oldest for one in found.values() if one.oldest is not None), default=None),
        consumers=consumers,
    )
    return backlog, found


def channels(db: Connection) -> list[str]:
    return [name for (name,) in db.execute("SELECT name FROM channels ORDER BY name")]


def read_by(db: Connection, group: str) -> list[str]:
    """The channels that it reads."""
    return [name for (name,) in db.execute("SELECT channel FROM subscriptions WHERE grp = ? ORDER BY 1", (group,))]


def disband(db: Connection, group: str, own: Sequence[str]) -> int:
    """Remove it with its own channels. How many still read it: then nothing is removed."""
    if consumers := readers(db, group):
        return consumers
    close_passing(db, group)
    for channel in own:
        db.execute("DELETE FROM messages WHERE channel = ?", (channel,))
        db.execute("DELETE FROM channels WHERE name = ?", (channel,))
    return 0


def message(row: Sequence[Any], address: Address) -> Message:
    """A row, as it was published there."""
    _, _, _, type_, key, headers, body, *_ = row
    return Message(address, type_, key, json.loads(headers), body)


def _put(db: Connection, channel: str, message: Message, limit: int) -> Exception | None:
    """Store it for all who read the channel. None, or why not."""
    kind, headers = message.address.kind, json.dumps(dict(message.headers))
    size = len(message.body or b"") + len(headers) + len(message.key or "")
    most = limit + (HEADROOM if kind in ("retry", "dead") else 0)
    if size > most:
        return MessageTooLarge(f"{message.type} for {message.address}", size, most)
    if db.execute("SELECT 1 FROM channels WHERE name = ?", (channel,)).fetchone() is None:
        if kind == "reply":
            return None  # who asked is gone
        return (NoOwner if kind == "inbox" else NotProvisioned)(f"{message.address} is not in the SQLite file")
    readers = db.execute("SELECT grp FROM subscriptions WHERE channel = ?", (channel,)).fetchall()
    if readers or kind == "dead":
        values = (channel, time.time(), message.type, message.key, headers, message.body)
        insert = "INSERT INTO messages (channel, stored, type, key, headers, body) VALUES (?, ?, ?, ?, ?, ?)"
        id_ = db.execute(insert, values).lastrowid
        due = 0.0 if message.due is None else message.due.timestamp()
        rows = [(reader, id_, due) for (reader,) in readers]
        db.executemany("INSERT INTO pending (grp, id, free_from) VALUES (?, ?, ?)", rows)
    return None
