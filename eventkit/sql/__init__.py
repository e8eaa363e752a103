"""Once, and an outbox, in your own database with SQLAlchemy 2: `pip install 'faststream-eventkit[sql]'`."""

try:
    import sqlalchemy  # noqa: F401
except ImportError as error:
    raise ImportError("eventkit.sql needs SQLAlchemy 2: pip install 'faststream-eventkit[sql]'") from error

from eventkit.sql.asynchronous import SqlStore
from eventkit.sql.plain import BlockingSqlStore
from eventkit.sql.relay import Relay
from eventkit.sql.statements import Outbox, Refused
from eventkit.sql.tables import metadata

__all__ = ["BlockingSqlStore", "Outbox", "Refused", "Relay", "SqlStore", "metadata"]
