"""What is on the brokers: topics, their limits, and how far groups have come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from aiokafka import TopicPartition  # type: ignore[import-untyped]
from aiokafka.admin import NewTopic  # type: ignore[import-untyped]
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType  # type: ignore[import-untyped]
from aiokafka.errors import (  # type: ignore[import-untyped]
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaError,
    KafkaTimeoutError,
    NotCoordinatorError,
    for_code,
)
from aiokafka.protocol.admin import DeleteGroupsRequest  # type: ignore[import-untyped]
from aiokafka.protocol.commit import OffsetFetchRequest  # type: ignore[import-untyped]
from aiokafka.protocol.metadata import MetadataRequest  # type: ignore[import-untyped]
from aiokafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]

from eventkit_kafka.clients import Clients, begin, end, end_consumer, keep_commits

T = TypeVar("T")

_LIMIT = "max.message.bytes"
_LEAST = "min.insync.replicas"
_BROKER_LIMIT = "message.max.bytes"
_BROKER_REPLICATION = "default.replication.factor"
_DEFAULT_LIMIT = 1_048_588
_EXISTS = 36
_THERE, _ABSENT = (0, 5), (3, 17)  # without a leader, it is there; a name that cannot be is not
_WARMING_UP = (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError)
_WATCH, _PATIENCE = 2.0, 4.0
_NO_MEMBERS = ("Empty", "Dead")
_HAS_MEMBERS, _NO_GROUP = 68, 69
_DELETED = 15.0
"""Seconds that a topic may take to be gone."""


class Wanted(NamedTuple):
    """A topic to create."""

    name: str
    partitions: int | None
    """None: the broker's default."""
    replication: int | None
    """None: the broker's default."""
    configs: Mapping[str, str]


class Topics:
    """One admin client, and one consumer without a group that is asked for offsets."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._admin: Any = None
        self._reader: Any = None
        self._opening = asyncio.Lock()
        self._default_limit = _DEFAULT_LIMIT
        self._watching: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self.error: Exception | None = None
        """Why no broker answers; None while one does."""

    async def start(self) -> int:
        """Connect. The largest batch that this broker takes for topics that do not say, in bytes."""
        admin = self._clients.admin()
        try:
            await begin(admin.start)
        except BaseException:
            await end("admin client", admin.close, 1.0)
            raise
        self._admin = admin
        self._default_limit = await self._broker_limit()
        self._watching = asyncio.create_task(self._watch(), name="eventkit kafka watch")
        return self._default_limit

    async def stop(self, seconds: float) -> None:
        admin, self._admin = self._admin, None
        reader, self._reader = self._reader, None
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
        if reader is not None:
            await end_consumer(reader, seconds)
        if self._ending:
            await asyncio.wait(self._ending)
        if admin is not None:
            await end("admin client", admin.close, seconds)

    async def _watch(self) -> None:
        """Does any broker answer? aiokafka itself connects again, and says nothing of it.

        A question is waited for until aiokafka gives it up: only then does it close a connection that leads nowhere.
        """
        while True:
            asked = asyncio.ensure_future(self._client.send(self._client.get_random_node(), MetadataRequest([])))
            try:
                while not (await asyncio.wait([asked], timeout=_PATIENCE))[0]:
                    self.error = TimeoutError("Kafka does not answer")
                failure = ConnectionError("Kafka is gone") if asked.cancelled() else asked.exception()
                self.error = failure if isinstance(failure, Exception) else None
            finally:
                asked.cancel()
            await asyncio.sleep(_WATCH)

    async def existing(self, names: Iterable[str]) -> set[str]:
        """Which of these are there."""
        return {topic["topic"] for topic in await self._ask(set(names)) if topic["error_code"] in _THERE}

    async def present(self, names: Iterable[str]) -> set[TopicPartition]:
        """The partitions of those that are there."""
        return {
            TopicPartition(topic["topic"], partition["partition"])
            for topic in await self._ask(set(names))
            if topic["error_code"] in _THERE
            for partition in topic["partitions"]
        }

    async def limits(self, names: Collection[str]) -> dict[str, int]:
        """The largest batch that each takes, in bytes. Where we may not ask, the broker's default is assumed."""
        return dict.fromkeys(names, self._default_limit) | await self._configs(names, _LIMIT)

    async def min_insync_replicas(self, names: Collection[str]) -> dict[str, int]:
        """How many replicas must have a message of each. Without those of which we may not ask."""
        return await self._configs(names, _LEAST)

    async def _configs(self, names: Collection[str], key: str) -> dict[str, int]:
        found: dict[str, int] = {}
        if names:
            resources = [ConfigResource(ConfigResourceType.TOPIC, name, {key: ""}) for name in names]
            for response in await self._admin.describe_configs(resources):
                for code, _, _, name, entries in response.resources:
                    for entry in entries if not code else ():
                        if entry[0] == key:
                            found[name] = int(entry[1])
        return found

    async def replicas(self, names: Collection[str]) -> dict[str, int]:
        """Of how many replicas each is, those included that are down; of the partition that has fewest."""
        return {
            topic["topic"]: min(len(partition["replicas"]) for partition in topic["partitions"])
            for topic in await self._ask(names)
            if topic["partitions"]
        }

    async def create(self, wanted: Sequence[Wanted]) -> None:
        """Make these; that one is there already is success."""
        topics = []
        for want in wanted:
            topic = NewTopic(want.name, 1, 1, topic_configs=dict(want.configs))
            topic.num_partitions = want.partitions or -1  # -1, which NewTopic itself refuses: the broker's default
            topic.replication_factor = want.replication or -1
            topics.append(topic)
        if topics:
            response = await self._admin.create_topics(topics, timeout_ms=10_000)
            for name, code, message, *_ in response.topic_errors:
                if code not in (0, _EXISTS):
                    raise for_code(code)(f"cannot create the topic {name}: {message}")

    async def default_replication(self) -> int | None:
        """Replicas of a topic that is created without saying how many. None: we may not ask."""
        found = await self._broker_config(_BROKER_REPLICATION)
        return None if found is None else int(found)

    async def delete(self, names: Collection[str]) -> None:
        """Returns when they are gone; those that are not there are no error."""
        response = await self._admin.delete_topics(list(names), timeout_ms=10_000)
        for name, code, *_ in response.topic_error_codes:
            if code not in (0, *_ABSENT):
                raise for_code(code)(f"cannot delete the topic {name}")
        async with asyncio.timeout(_DELETED):
            while True:
                if not await self.existing(names):
                    return
                await asyncio.sleep(0.02)

    async def all(self) -> list[str]:
        """The names of all topics that this user may see."""
        found: list[str] = await self._admin.list_topics()
        return found

    async def partitions(self, names: Collection[str]) -> dict[str, list[TopicPartition]]:
        """Of topics that exist; returns when each partition has a leader."""
        while names:
            found = await self._ask(names)
            if len(found) == len(names) and all(_led(topic) for topic in found):
                return {
                    topic["topic"]: sorted(TopicPartition(topic["topic"], p["partition"]) for p in topic["partitions"])
                    for topic in found
                }
            await asyncio.sleep(0.02)
        return {}

    async def committed(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """How far the group has come; without those partitions of which it has nothing."""

        async def ask() -> dict[TopicPartition, OffsetAndMetadata]:
            # The admin client's own call takes an error of the whole answer for a group that has read nothing.
            node = await self._admin.find_coordinator(group)
            response = await self._client.send(node, OffsetFetchRequest(group, None))
            _check(getattr(response, "error_code", 0), group)
            marks: dict[TopicPartition, OffsetAndMetadata] = {}
            for topic, partitions in response.topics:
                for partition, offset, metadata, code in partitions:
                    _check(code, group)
                    if offset >= 0:
                        marks[TopicPartition(topic, partition)] = OffsetAndMetadata(offset, metadata)
            return marks

        return await _patiently(ask)

    async def members(self, group: str) -> int:
        """How many read the group, those included that are just joining it."""

        async def ask() -> int:
            for response in await self._admin.describe_consumer_groups([group]):
                for code, _, state, _, _, members, *_ in response.groups:
                    if code != _NO_GROUP:  # as newer brokers call one that they do not know
                        _check(code, group)
                        return 0 if state in _NO_MEMBERS else max(len(members), 1)
            return 0

        return await _patiently(ask)

    async def delete_group(self, group: str) -> bool:
        """Its marks, so that it begins anew if it is made again. False: it has members, and was not deleted."""

        async def ask() -> bool:
            node = await self._admin.find_coordinator(group)
            response = await self._client.send(node, DeleteGroupsRequest([group]))
            for _, code in response.results:
                if code not in (0, _NO_GROUP, _HAS_MEMBERS):
                    _check(code, group)
                return bool(code != _HAS_MEMBERS)
            return True

        return await _patiently(ask)

    async def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Set how far a group without members has come."""
        consumer = self._clients.consumer(group_id=group)
        try:
            consumer.assign(list(offsets))
            consumer.pause(*offsets)  # it is not to read
            await begin(consumer.start)
            keep_commits(consumer)
            await consumer.commit(dict(offsets))
        finally:
            await end_consumer(consumer, 2.0)

    async def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset that the next record will get."""
        return await self._look(partitions, lambda reader: reader.end_offsets(list(partitions)))

    async def led(self, partitions: Collection[TopicPartition]) -> None:
        """Returns when their leaders answer for them, which takes long where hundreds were made at once. Bounded by the
        caller."""
        while True:
            try:
                await self.ends(partitions)
            except KafkaTimeoutError:
                continue
            return

    async def begins(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset of the oldest record kept."""
        return await self._look(partitions, lambda reader: reader.beginning_offsets(list(partitions)))

    async def _look(
        self, partitions: Collection[TopicPartition], ask: Callable[[Any], Awaitable[dict[TopicPartition, int]]]
    ) -> dict[TopicPartition, int]:
        reader = await self._offsets()
        client = reader._client  # noqa: SLF001 there is no public way to say which topics are meant
        try:
            # all at once: aiokafka itself finds one unknown topic a turn, and waits in between
            await client.set_topics({*client._topics, *(tp.topic for tp in partitions)})  # noqa: SLF001
            return await ask(reader)
        except BaseException:
            # its connections may lead nowhere, which aiokafka does not notice when its caller gives up first
            if self._reader is reader:
                self.renew()
            raise

    def renew(self) -> None:
        """Ask the next question about offsets over new connections."""
        reader, self._reader = self._reader, None
        if reader is not None:
            task = asyncio.create_task(end_consumer(reader, 1.0), name="eventkit kafka end reader")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _offsets(self) -> Any:
        async with self._opening:
            if self._reader is None:
                reader = self._clients.consumer()
                try:
                    await begin(reader.start)
                except BaseException:
                    await end_consumer(reader, 1.0)
                    raise
                self._reader = reader
            return self._reader

    @property
    def _client(self) -> Any:
        """The admin client's connections, for what it cannot ask itself."""
        return self._admin._client  # noqa: SLF001 or it would need connections of its own

    async def _ask(self, names: Collection[str]) -> list[dict[str, Any]]:
        """What the brokers say of these topics."""
        if not names:
            return []
        # The admin client can only ask for all topics, or in a way that makes those that are missing.
        request = MetadataRequest(list(names), allow_auto_topic_creation=False)
        response = await self._client.send(self._client.get_random_node(), request)
        topics: list[dict[str, Any]] = response.to_object()["topics"]
        for topic in topics:
            code = topic["error_code"]
            if code not in _THERE and code not in _ABSENT:
                raise for_code(code)(topic["topic"])
        return topics

    async def _broker_limit(self) -> int:
        return int(await self._broker_config(_BROKER_LIMIT) or _DEFAULT_LIMIT)

    async def _broker_config(self, key: str) -> str | None:
        """As one of the brokers has it. None: it does not say."""
        node = self._client.get_random_node()
        if node is not None:
            resource = ConfigResource(ConfigResourceType.BROKER, str(node), {key: ""})
            try:
                responses = await self._admin.describe_configs([resource])
            except KafkaError:
                return None
            for response in responses:
                for code, _, _, _, entries in response.resources:
                    for entry in entries if not code else ():
                        if entry[0] == key:
                            return str(entry[1])
        return None


def _check(code: int, group: str) -> None:
    if code:
        raise for_code(code)(f"consumer group {group}")


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again while the broker that is to know is still getting ready."""
    while True:
        try:
            return await ask()
        except _WARMING_UP:
            await asyncio.sleep(0.1)


def _led(topic: Mapping[str, Any]) -> bool:
    return not topic["error_code"] and bool(topic["partitions"]) and all(p["leader"] >= 0 for p in topic["partitions"])
