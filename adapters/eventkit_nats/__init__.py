"""eventkit on NATS JetStream."""

from eventkit_nats.adapter import NatsAdapter
from eventkit_nats.settings import Authentication, NatsSettings

__all__ = ["Authentication", "NatsAdapter", "NatsSettings"]
