"""What is asked of the database: each function inside a transaction that its caller has begun and will end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    bindparam,
    delete,
    func,
    insert,
    inspect,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.exc import DBAPIError, IntegrityError

from eventkit import headers as h
from eventkit.adapter import Address, Message
from eventkit.once import Busy, Handled, Mark
from eventkit.packed import pack, unpack
from eventkit.sql.tables import handled, metadata, outbox, relay

_SHOWN = 200
"""Characters that are kept where only people read them."""
_LEADER = "outbox"
_CONTENDED = ("40001", "40P01")
"""SQLSTATE of a serialization failure, and of a deadlock."""


def now() -> datetime:
    return datetime.now(UTC)


# what was handled


def claim(connection: Connection, mark: Mark) -> Handled | Busy | None:
    """Mark it, in this transaction; None: it is ours to handle. Waits for nobody: a mark that another transaction
    holds and has not committed is Busy."""
    row = {
        "mark": mark.key,
        "group_name": _for_people(mark.group),
        "message_id": _for_people(mark.id),
        "handled_at": now(),
    }
    try:
        if _marked(connection, row, mark.of_any):
            return None
    except IntegrityError:
        connection.rollback()
    except DBAPIError as error:
        if _is_contended(error):
            return Busy()
        raise
    return look_up(connection, mark) or Busy()


def _marked(connection: Connection, row: dict[str, Any], of_any: str) -> bool:
    """Is it new, and is there none of any type? RETURNING tells: the count of inserted rows is not known with every
    driver."""
    dialect = connection.dialect.name
    if dialect == "postgresql":
        # An INSERT alone would wait for the other transaction, for as long as its handler runs.
        lock = int(row["mark"][:15], 16)
        columns = [literal(value, handled.c[name].type).label(name) for name, value in row.items()]
        known = select(handled.c.mark).where(handled.c.mark == of_any).exists()
        chosen = select(*columns).where(func.pg_try_advisory_xact_lock(lock), ~known)
        marking = postgresql_insert(handled).from_select([*row], chosen).on_conflict_do_nothing()
        return connection.execute(marking.returning(handled.c.mark)).one_or_none() is not None
    connection.execute(insert(handled).values(row))
    if row["mark"] == of_any or not connection.execute(select(handled.c.mark).where(handled.c.mark == of_any)).first():
        return True
    connection.rollback()
    return False


def look_up(connection: Connection, mark: Mark) -> Handled | None:
    """What is left to do of a message that was handled; None: it was not."""
    keys = (mark.key, mark.of_any)
    found = connection.execute(select(handled.c.answer).where(handled.c.mark.in_(keys))).first()
    if found is None:
        return None
    rows = connection.execute(select(outbox.c.message).where(outbox.c.mark.in_(keys)).order_by(outbox.c.position))
    answer = None if found.answer is None else unpack(found.answer)
    return Handled(tuple(unpack(row.message) for row in rows), answer)


def complete(connection: Connection, mark: Mark, done: Handled, hold: timedelta) -> None:
    """What goes with the mark."""
    if done.answer is not None:
        connection.execute(update(handled).where(handled.c.mark == mark.key).values(answer=pack(done.answer)))
    if done.outgoing:
        until = now() + hold
        connection.execute(insert(outbox), [{**row, "held_until": until} for row in rows(done.outgoing, mark)])


def sent(connection: Connection, mark: Mark) -> None:
    connection.execute(delete(outbox).where(outbox.c.mark.in_((mark.key, mark.of_any))))


def forget(connection: Connection, before: datetime, most: int) -> int:
    """Marks that are older, the oldest first; how many there were."""
    oldest = select(handled.c.mark).where(handled.c.handled_at < before).order_by(handled.c.handled_at).limit(most)
    return connection.execute(delete(handled).where(handled.c.mark.in_(oldest.scalar_subquery()))).rowcount


# the outbox


class Waiting(NamedTuple):
    """One message of the outbox."""

    position: int
    message: str


def rows(messages: Sequence[Message], mark: Mark | None = None) -> list[dict[str, Any]]:
    """To be inserted into the outbox, in this order."""
    added = now()
    return [
        {
            "mark": None if mark is None else mark.key,
            "message_id": _for_people(message.headers.get(h.ID, "")),
            "destination": _destination(message.address),
            "type": _for_people(message.type),
            "message": pack(message),
            "added_at": added,
            "held_until": None,
        }
        for message in messages
    ]


def next_ones(
    connection: Connection, owner: str, most: int, aside: Collection[int] = (), closed: Collection[Address] = ()
) -> list[Waiting]:
    """The first that wait, without those positions and destinations; none, where another relay is the owner."""
    others = _waiting(owner)
    if aside:  # written out: databases take so many parameters and no more
        positions: BindParameter[Any] = bindparam("aside", sorted(aside), expanding=True, literal_execute=True)
        others.append(outbox.c.position.not_in(positions))
    if closed:
        others.append(outbox.c.destination.not_in([_destination(address) for address in closed]))
    wanted = select(outbox.c.position, outbox.c.message).where(*others).order_by(outbox.c.position).limit(most)
    return [Waiting(row.position, row.message) for row in connection.execute(wanted)]


def these(connection: Connection, owner: str, positions: Collection[int]) -> list[Waiting]:
    """Those of them that still wait; none, where another relay is the owner."""
    them = (*_waiting(owner), outbox.c.position.in_(positions))
    wanted = select(outbox.c.position, outbox.c.message).where(*them).order_by(outbox.c.position)
    return [Waiting(row.position, row.message) for row in connection.execute(wanted)]


def _waiting(owner: str) -> list[ColumnElement[bool]]:
    return [
        outbox.c.refused.is_(None),
        or_(outbox.c.held_until.is_(None), outbox.c.held_until < now()),
        select(relay.c.name).where(relay.c.name == _LEADER, relay.c.owner == owner).exists(),
    ]


def remove(connection: Connection, positions: Sequence[int]) -> None:
    connection.execute(
        delete(outbox).where(outbox.c.position == bindparam("at")), [{"at": position} for position in positions]
    )


def refuse(connection: Connection, refused: Sequence[tuple[int, str]]) -> None:
    connection.execute(
        update(outbox).where(outbox.c.position == bindparam("at")).values(refused=bindparam("why")),
        [{"at": position, "why": _for_people(why)} for position, why in refused],
    )


# who publishes


@dataclass(frozen=True, slots=True)
class Lead:
    """Who leads, as it was seen."""

    owner: str
    beat: int


def lead(connection: Connection, me: str, take_from: Lead | None) -> Lead:
    """Go on leading; or begin to, where nobody does, or after `take_from` that has not been heard of. Who leads now."""
    found = connection.execute(select(relay.c.owner, relay.c.beat).where(relay.c.name == _LEADER)).one_or_none()
    if found is None:
        try:
            connection.execute(insert(relay).values(name=_LEADER, owner=me, beat=1))
        except IntegrityError:
            connection.rollback()
            return Lead("?", 0)
        return Lead(me, 1)
    seen = Lead(found.owner, found.beat)
    if seen.owner not in (me, "") and seen != take_from:
        return seen
    mine = connection.execute(
        update(relay)
        .where(relay.c.name == _LEADER, relay.c.owner == seen.owner, relay.c.beat == seen.beat)
        .values(owner=me, beat=seen.beat + 1)
    )
    return Lead(me, seen.beat + 1) if mine.rowcount == 1 else Lead("?", 0)


def resign(connection: Connection, me: str) -> None:
    connection.execute(update(relay).where(relay.c.name == _LEADER, relay.c.owner == me).values(owner=""))


# for people


@dataclass(frozen=True, slots=True)
class Outbox:
    """What stands in the outbox now."""

    waiting: int
    """Messages that the broker has not confirmed yet."""
    refused: int
    """Messages that it will never take as they are: see `refused()`."""
    oldest: timedelta | None
    """The age of the first that waits. None: none does."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A message of the outbox that the broker will never take as it is."""

    position: int
    id: str
    type: str
    destination: str
    why: str


def measure(connection: Connection) -> Outbox:
    waits = outbox.c.refused.is_(None)
    waiting, oldest = connection.execute(select(func.count(), func.min(outbox.c.added_at)).where(waits)).one()
    refused = connection.execute(select(func.count()).select_from(outbox).where(~waits)).scalar_one()
    if oldest is not None and oldest.tzinfo is None:
        oldest = oldest.replace(tzinfo=UTC)
    return Outbox(waiting, refused, None if oldest is None else now() - oldest)


def list_refused(connection: Connection, most: int) -> list[Refused]:
    found = connection.execute(
        select(outbox.c.position, outbox.c.message_id, outbox.c.type, outbox.c.destination, outbox.c.refused)
        .where(outbox.c.refused.is_not(None))
        .order_by(outbox.c.position)
        .limit(most)
    )
    return [Refused(*row) for row in found]


def retry_refused(connection: Connection) -> int:
    return connection.execute(update(outbox).where(outbox.c.refused.is_not(None)).values(refused=None)).rowcount


def missing_tables(connection: Connection) -> list[str]:
    looking = inspect(connection)
    return [table.name for table in metadata.sorted_tables if not looking.has_table(table.name)]


def _is_contended(error: DBAPIError) -> bool:
    """Another transaction is in the way: of SQLite's only writer, or at an isolation level that lets one of two win."""
    return getattr(error.orig, "sqlstate", None) in _CONTENDED or "database is locked" in str(error.orig)


def _destination(address: Address) -> str:
    return _for_people(str(address))


def _for_people(text: str) -> str:
    """Without what a database does not take in a text."""
    return text[:_SHOWN].replace("\0", "").encode(errors="replace").decode()
