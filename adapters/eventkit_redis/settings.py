"""EVENTKIT_REDIS__*: what an operator may set for Redis."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventkit.security import Credentials, Tls


class RedisSettings(BaseSettings):
    """Read from EVENTKIT_REDIS__*, such as EVENTKIT_REDIS__CREDENTIALS__PASSWORD_FILE."""

    model_config = SettingsConfigDict(
        env_prefix="EVENTKIT_REDIS__", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    tls: Tls = Tls()
    credentials: Credentials = Credentials()
    sentinel: Credentials = Credentials()
    """For the Sentinels of a redis+sentinel:// URL, where they ask for a password. None: they are asked without."""
    wait: int = Field(default=0, ge=0, le=10)
    """A publish succeeds when so many replicas have it too (Redis' `WAIT`). Answered with NotReplicated where fewer
    have it after `wait_timeout`. 0: when the primary has it; a failover may then lose it."""
    wait_timeout: timedelta = Field(
        default=timedelta(seconds=1), ge=timedelta(milliseconds=10), le=timedelta(seconds=5)
    )
    """How long to wait for the replicas. All that is published meanwhile waits behind."""
    lease: timedelta = Field(default=timedelta(seconds=30), ge=timedelta(milliseconds=200), le=timedelta(hours=12))
    """How long a message stays with a consumer that is not heard of; then another takes it over. A living consumer
    renews it every third of that, however long its handler runs. The replicas of a group should agree on it."""
    batch: int = Field(default=500, ge=1, le=10_000)
    """At most so many messages in one read."""
    topic_length: int = Field(default=1_000_000, ge=0)
    """A topic keeps about so many of its newest messages, read or not: older ones are dropped, and a group that had
    not read them is told in its log. 0: never dropped by length, and a retired topic keeps its memory for ever.
    Inboxes, retries and dead letters are never trimmed. `physical` topics are not ours to trim."""
    topic_age: timedelta = Field(default=timedelta(0), ge=timedelta(0))
    """A topic drops messages older than that, read or not. 0: never dropped by age."""
    message_bytes: int = Field(default=8 * 1024 * 1024, ge=1024, le=512 * 1024 * 1024)
    """The largest message that may be published, in bytes. Redis itself takes 512 MB (`proto-max-bulk-len`, which
    bounds this too), but keeps it in memory, and serves nobody else while it moves it."""
    publish_timeout: timedelta = Field(default=timedelta(seconds=10), ge=timedelta(milliseconds=100))
    """How long `publish` waits for Redis, and for its return while it is away, before it answers TimeoutError."""
    reply_length: int = Field(default=10_000, ge=100)
    """The stream of replies to one process keeps about so many of the newest."""
    reply_expiry: timedelta = Field(default=timedelta(minutes=5), ge=timedelta(seconds=1))
    """Replies to a process that is gone disappear after that."""
