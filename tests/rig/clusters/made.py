"""A cluster by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.rig.clusters.cluster import Cluster, Say
from tests.rig.clusters.kafka import Kafka
from tests.rig.clusters.nats import Nats
from tests.rig.clusters.rabbit import Rabbit
from tests.rig.clusters.redis import Asynchronous, Redis

CLUSTERS: Mapping[str, type[Cluster]] = {
    "redis": Redis,
    "redis-asynchronous": Asynchronous,
    "nats": Nats,
    "rabbit": Rabbit,
    "kafka": Kafka,
}


@contextmanager
def cluster(name: str, say: Say) -> Iterator[Cluster]:
    """Of that name, ended afterwards."""
    made = CLUSTERS[name](say)
    try:
        yield made
    finally:
        made.stop()
