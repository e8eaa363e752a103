"""The databases that the stores are tested on: SQLite in a file, and PostgreSQL."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, func, make_url, select, text
from sqlalchemy.pool import NullPool

from eventkit.sql import metadata as ours
from eventkit.sql.tables import handled, outbox

KINDS = ("sqlite", "postgres")
_count = itertools.count(1)

theirs = MetaData()
work = Table("work", theirs, Column("id", Integer, primary_key=True), Column("order_id", String(50)))
"""What a handler does: a row a time."""


@dataclass(frozen=True)
class Database:
    """One that is empty but for the tables."""

    kind: str
    url: str

    @property
    def async_url(self) -> str:
        return _with_driver(self.url, {"sqlite": "sqlite+aiosqlite", "postgres": "postgresql+asyncpg"}[self.kind])

    @property
    def plain_url(self) -> str:
        return _with_driver(self.url, {"sqlite": "sqlite", "postgres": "postgresql+psycopg"}[self.kind])

    def count(self, table: Table, *where: object) -> int:
        """Rows that are committed."""
        engine = create_engine(self.plain_url, poolclass=NullPool)
        with engine.connect() as connection:
            found: int = connection.execute(select(func.count()).select_from(table).where(*where)).scalar_one()  # type: ignore[arg-type]
        return found

    def work(self) -> int:
        return self.count(work)

    def handled(self) -> int:
        return self.count(handled)

    def waiting(self) -> int:
        return self.count(outbox)


def fresh(kind: str, folder: Path, server: str | None) -> Database:
    """A new database with all tables."""
    if kind == "sqlite":
        made = Database(kind, f"sqlite:///{folder}/test{next(_count)}.db")
    else:
        assert server is not None
        name = f"t{os.getpid()}x{next(_count)}"
        admin = create_engine(_with_driver(server, "postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        admin.dispose()
        made = Database(kind, make_url(server).set(database=name).render_as_string(hide_password=False))
    engine = create_engine(made.plain_url, poolclass=NullPool)
    ours.create_all(engine)
    theirs.create_all(engine)
    return made


def _with_driver(url: str, driver: str) -> str:
    return make_url(url).set(drivername=driver).render_as_string(hide_password=False)
