"""A complete adapter over one SQLite file: services on one machine that need no broker. See docs/write-an-adapter.md.

`storage` is the file, `consumer` reads one group of it, `adapter` is the port.
"""

from examples.sqlite_adapter.adapter import SqliteAdapter, SqliteSettings

__all__ = ["SqliteAdapter", "SqliteSettings"]
