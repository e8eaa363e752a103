"""RabbitMQ for eventkit."""

from eventkit_rabbit.adapter import RabbitAdapter
from eventkit_rabbit.settings import RabbitSettings

__all__ = ["RabbitAdapter", "RabbitSettings"]
