"""Apache Kafka for eventkit."""

from eventkit_kafka.adapter import KafkaAdapter
from eventkit_kafka.settings import KafkaSettings

__all__ = ["KafkaAdapter", "KafkaSettings"]
