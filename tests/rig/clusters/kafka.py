"""Kafka: three servers that are broker and controller, and topics of three replicas of which two must have a write."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar

from eventkit import names
from eventkit.testing.brokers.kafka import Kafka as Recipe
from eventkit.testing.brokers.process import Program, free_port
from tests.rig.clusters.cluster import Cluster
from tests.rig.work import TOPIC

_SERVERS = 3
_COPIES = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    "group.min.session.timeout.ms": "1000",
}

_QUICK = ("-Xms128m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""A killed server waits for nothing when it comes back: its time goes into starting Java, on the processors that the
others need as well. With a small heap and the quick compiler only, that is 2.9 s of them instead of 5.1."""


class Kafka(Cluster):
    name = "kafka cluster"
    broker = "kafka"
    settings: ClassVar = {
        "partitions": "2",
        "replication": "3",
        "session_timeout": "PT2S",
        "rebalance_timeout": "PT6S",
        "metadata_age": "PT5S",
    }

    @property
    def url(self) -> str:
        return "kafka://" + ",".join(f"127.0.0.1:{port}" for port in self._ports)

    def _begin(self) -> None:
        recipe = Recipe()
        found = recipe.find()
        self._version = found.version
        controllers = [free_port() for _ in range(_SERVERS)]
        voters = ",".join(f"{number}@127.0.0.1:{port}" for number, port in enumerate(controllers, 1))
        self._ports: list[int] = []
        made: list[tuple[str, Any, Program]] = []
        for number, port in enumerate(controllers, 1):
            settings = {
                **_COPIES,
                "node.id": str(number),
                "controller.quorum.voters": voters,
                "listeners": f"CONTROLLER://127.0.0.1:{port}",
            }
            folder = self._folder()
            (program,) = recipe.programs(found, folder, settings, self.say)
            self._ports.append(program.port)
            java, *words = program.command
            command = [java, *_QUICK, *(word for word in words if not word.startswith(("-Xm", "-XX:")))]
            made.append((str(number), folder, replace(program, command=command, seconds=120)))
        with ThreadPoolExecutor(_SERVERS) as pool:  # none is ready before a quorum of them is
            list(pool.map(lambda one: self._add(*one), made))

    @property
    def version(self) -> str:
        return f"{self._version}, three servers"

    def leader(self) -> str:
        topic = names.kafka(self.namespace).channel("topic", TOPIC)
        for found in self._topics():
            if found["topic"] == topic:
                for partition in found["partitions"]:
                    if partition["partition"] == 0 and partition["leader"] > 0:
                        return str(partition["leader"])
        raise LookupError(topic)

    def in_step(self) -> bool:
        try:
            return all(
                len(partition["isr"]) == len(partition["replicas"]) and partition["leader"] in partition["isr"]
                for found in self._topics()
                for partition in found["partitions"]
            )
        except LookupError:
            return False

    def _topics(self) -> list[dict[str, Any]]:
        from aiokafka.admin import AIOKafkaAdminClient
        from aiokafka.errors import KafkaError

        async def ask() -> list[dict[str, Any]]:
            servers = self.url.removeprefix("kafka://")
            admin = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=3000)
            await admin.start()
            try:
                return list(await admin.describe_topics())
            finally:
                await admin.close()

        try:
            return asyncio.run(ask())
        except (KafkaError, OSError, TimeoutError) as error:
            raise LookupError(str(error)) from error
