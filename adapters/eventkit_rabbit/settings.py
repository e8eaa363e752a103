"""The adapter's own settings, from EVENTKIT_RABBIT__*."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventkit.security import Credentials, Tls


class RabbitSettings(BaseSettings):
    """What an operator may change, such as EVENTKIT_RABBIT__CREDENTIALS__PASSWORD_FILE=/run/secrets/rabbit.

    Times are written as ISO 8601 durations (PT30S) or as clock time (00:00:30).
    """

    model_config = SettingsConfigDict(
        env_prefix="EVENTKIT_RABBIT__", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    tls: Tls = Tls()
    """TLS to the broker; on with an amqps:// URL."""
    credentials: Credentials = Credentials()
    """User and password; they win over the URL's. With `?auth=external` in the URL the TLS certificate is used."""
    heartbeat: timedelta = Field(default=timedelta(seconds=10), ge=timedelta(seconds=1), le=timedelta(minutes=10))
    """How often broker and client show that they are alive. A connection that is cut without a word is noticed after
    about three of them. `?heartbeat=` in the URL wins."""
    consumer_timeout: timedelta | None = Field(default=None, ge=timedelta(minutes=1))
    """How long a message may stay unsettled before the broker takes it back (x-consumer-timeout, RabbitMQ 3.11.15 and
    newer). None: as the broker is set, 30 minutes by default."""
    replicas: int | None = Field(default=None, ge=1)
    """On how many nodes of the cluster a queue that is created is kept (x-quorum-initial-group-size). None: as the
    broker is set, 3 by default. A smaller cluster is refused at start if `management` is set; without it RabbitMQ takes
    the nodes that there are, and says nothing. Queues that exist stay as they are."""
    publish_timeout: timedelta = Field(default=timedelta(seconds=10), gt=timedelta())
    """How long a publish waits for the broker. After it the answer is TimeoutError: it may or may not have arrived."""
    management: SecretStr | None = None
    """The URL of the management API, such as http://localhost:15672, which alone can list the groups that there are.
    Its user, if it names none, is the broker's. None: groups are found by their names only."""
    max_message_bytes: int | None = Field(default=None, gt=0)
    """The broker's max_message_size in bytes, which it does not tell. None: its version's default (3.x: 128 MiB,
    4.x: 16 MiB)."""

    @field_validator("management")
    @classmethod
    def _http(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("a URL such as http://localhost:15672 or https://user:password@host:15671")
        return url
