"""eventkit's adapter for Redis Streams."""

from eventkit_redis.adapter import RedisAdapter
from eventkit_redis.settings import RedisSettings

__all__ = ["RedisAdapter", "RedisSettings"]
