"""What is open between start and stop, as its parts need each other."""

from __future__ import annotations

from dataclasses import dataclass

from eventkit.names import Naming
from eventkit_kafka.beginnings import Beginnings
from eventkit_kafka.clients import Clients
from eventkit_kafka.provision import Provisioner
from eventkit_kafka.publish import Publisher
from eventkit_kafka.settings import KafkaSettings
from eventkit_kafka.topics import Topics


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster as we reach it."""

    clients: Clients
    topics: Topics
    publisher: Publisher
    provisioner: Provisioner
    beginnings: Beginnings
    naming: Naming
    settings: KafkaSettings

    @classmethod
    def of(cls, clients: Clients, naming: Naming, settings: KafkaSettings) -> Cluster:
        """Not connected yet."""
        topics = Topics(clients)
        publisher = Publisher(
            clients, topics, naming, settings.publish_timeout.total_seconds(), settings.metadata_age.total_seconds()
        )
        beginnings = Beginnings(clients, topics, publisher, naming)
        provisioner = Provisioner(topics, beginnings, naming, settings)
        return cls(clients, topics, publisher, provisioner, beginnings, naming, settings)

    async def start(self) -> int:
        """Connect. The largest batch that the brokers take, in bytes, where a topic does not say."""
        await self.clients.probe()
        limit = await self.topics.start()
        await self.publisher.start()
        return limit

    async def stop(self, seconds: float) -> None:
        await self.publisher.stop(seconds * 0.7)
        await self.topics.stop(seconds * 0.15)
