"""The tables, for your own migrations: `target_metadata = [Base.metadata, eventkit.sql.metadata]` with Alembic."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

handled = Table(
    "eventkit_handled",
    metadata,
    Column("mark", String(64), primary_key=True, comment="SHA-256 of group, source, id and type"),
    Column("group_name", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("handled_at", DateTime(timezone=True), nullable=False),
    Column("answer", Text, comment="the reply to a request, as it was sent"),
    Index("eventkit_handled_at", "handled_at"),
)
"""The messages that were handled, until their retention is over. `group_name` and `message_id` are for people."""

outbox = Table(
    "eventkit_outbox",
    metadata,
    Column("position", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("mark", String(64), comment="of the handled message that this comes of"),
    Column("message_id", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("added_at", DateTime(timezone=True), nullable=False),
    Column("held_until", DateTime(timezone=True), comment="until then its handler's own process publishes it"),
    Column("refused", Text, comment="why the broker will never take it"),
    Index("eventkit_outbox_mark", "mark"),
    sqlite_autoincrement=True,
)
"""What the broker has not confirmed yet, in order. A row is deleted as soon as it has."""

relay = Table(
    "eventkit_relay",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("owner", String(64), nullable=False, comment="empty: nobody"),
    Column("beat", BigInteger, nullable=False),
)
"""Which of several relays publishes. It is the owner as long as `beat` goes on rising."""
