"""Making, or looking for, what is wanted."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from aiokafka.errors import InvalidReplicationFactorError  # type: ignore[import-untyped]

from eventkit.adapter import Address, Group, Provision
from eventkit.errors import NotProvisioned, SettingsError
from eventkit.names import Naming
from eventkit_kafka.beginnings import Beginnings
from eventkit_kafka.kept import Kept
from eventkit_kafka.partitions import CLASSES
from eventkit_kafka.publish import service_of
from eventkit_kafka.settings import KafkaSettings
from eventkit_kafka.topics import Topics, Wanted

_HEADROOM = 64 * 1024
"""A copy holds more than its original: what failed, and why."""
_REPLY_PARTITIONS = 8
_REPLY_MS = 10 * 60 * 1000


class Provisioner:
    """Idempotent, and safe in any number of processes at once: Kafka itself lets only one create a topic."""

    def __init__(self, topics: Topics, beginnings: Beginnings, naming: Naming, settings: KafkaSettings) -> None:
        self._topics = topics
        self._beginnings = beginnings
        self._naming = naming
        self._settings = settings
        self._kept = Kept(topics, settings)
        self._created: set[str] = set()

    def topic(self, address: Address) -> str:
        name = service_of(address.name) if address.kind == "reply" else address.name
        return self._naming.channel(address.kind, name, address.physical)

    async def provision(self, wanted: Collection[Address | Group], how: Provision) -> None:
        if how is Provision.ASSUME:
            return
        groups = [want for want in wanted if isinstance(want, Group) and not is_reply(want)]
        owned = {source for group in groups for source in group.sources if source.kind == "inbox"}
        channels: dict[str, Address] = {}
        for address in _addresses(wanted):
            channels.setdefault(self.topic(address), address)
        existing = await self._topics.existing(channels)
        missing = {topic: address for topic, address in channels.items() if topic not in existing}
        if how is Provision.VALIDATE:
            await self._validate(missing, groups)
            return
        lost = {
            topic: address for topic, address in missing.items() if address.kind == "inbox" and address not in owned
        }
        if lost:
            raise NotProvisioned(
                f"missing on this Kafka: {_listed(lost)}; an inbox is made by the service that owns it"
            )
        copies = {topic: address for topic, address in missing.items() if address.kind in ("retry", "dead")}
        await self._create([self._wanted(t, address, 0) for t, address in missing.items() if t not in copies])
        if copies:
            originals = [topic for topic, address in channels.items() if address.kind in ("topic", "inbox")]
            limits = await self._topics.limits(originals)
            longest = max(limits.values(), default=0)
            await self._create([self._wanted(topic, address, longest) for topic, address in copies.items()])
        if missing:
            fresh = await self._topics.partitions(list(missing))
            await self._topics.led([tp for found in fresh.values() for tp in found])
        await self._kept.compare({topic: address for topic, address in channels.items() if topic in existing})
        begun: dict[str, set[str]] = {}
        for group in groups:
            reads = {self.topic(address): address for address in (*group.sources, group.retry)}
            begun[group.name] = await self._beginnings.begin(group, reads, missing)
            self._created.add(group.name)
        await self._beginnings.note(begun)

    async def _create(self, wanted: list[Wanted]) -> None:
        """SettingsError: this Kafka has fewer brokers than that asks for."""
        replication, least = self._settings.replication, self._settings.min_insync_replicas
        if wanted and replication is None and least is not None:
            default = await self._topics.default_replication()
            if default is not None and default < least:
                raise SettingsError(
                    f"EVENTKIT_KAFKA__MIN_INSYNC_REPLICAS is {least}, and this Kafka makes topics of {default} replica"
                    f"{'' if default == 1 else 's'}, to which nothing could be published: set "
                    f"EVENTKIT_KAFKA__REPLICATION, {least + 1} for one, or its default.replication.factor"
                )
        try:
            await self._topics.create(wanted)
        except InvalidReplicationFactorError as error:
            said = (
                "its default.replication.factor"
                if replication is None
                else f"EVENTKIT_KAFKA__REPLICATION={replication}"
            )
            raise SettingsError(
                f"this Kafka has fewer brokers than {said} asks for: start more, or set EVENTKIT_KAFKA__REPLICATION to "
                f"what it has ({error})"
            ) from error

    async def restore(self, group: Group) -> bool:
        """Make again the topics of a running group that were deleted, to be read from their beginning. False: we had
        not made them."""
        if group.name not in self._created:
            return False
        await self.provision([group], Provision.CREATE)
        self._beginnings.forget(group.name)
        return True

    def forget(self, group: str) -> None:
        """It was removed."""
        self._created.discard(group)
        self._beginnings.forget(group)

    async def require(self, addresses: Iterable[Address]) -> None:
        """NotProvisioned, if there is no topic for one of these."""
        channels = {self.topic(address): address for address in addresses}
        existing = await self._topics.existing(channels)
        missing = {topic: address for topic, address in channels.items() if topic not in existing}
        if missing:
            raise NotProvisioned(f"missing on this Kafka: {_listed(missing)}")

    def _wanted(self, topic: str, address: Address, original: int) -> Wanted:
        """How a topic is made. `original`: the limit of those that a copy may come from, in bytes."""
        settings = self._settings
        partitions = settings.partitions
        configs: dict[str, str] = {}
        if address.kind == "retry":
            partitions = CLASSES * settings.retry_spread
            kept = int(settings.retry_retention.total_seconds() * 1000)
            configs = {"cleanup.policy": "delete", "retention.ms": str(kept), "retention.bytes": "-1"}
        elif address.kind == "dead":
            partitions = 1  # so that they are listed in the order they came
            configs = {"cleanup.policy": "compact"}
        elif address.kind == "reply":
            partitions = _REPLY_PARTITIONS
            configs = {"cleanup.policy": "delete", "retention.ms": str(_REPLY_MS), "segment.ms": str(_REPLY_MS)}
        if settings.min_insync_replicas is not None:
            configs["min.insync.replicas"] = str(settings.min_insync_replicas)
        if original:
            configs["max.message.bytes"] = str(original + _HEADROOM)
        return Wanted(topic, partitions, settings.replication, configs)

    async def _validate(self, missing: dict[str, Address], groups: Iterable[Group]) -> None:
        wrong = [_listed(missing)] if missing else []
        for group in groups:
            name = self._naming.group(group.name)
            committed = {tp.topic for tp in await self._topics.committed(name)}
            new = [topic for topic in map(self.topic, group.sources) if topic not in committed and topic not in missing]
            if new:
                wrong.append(f"consumer group {name} has not begun to read {', '.join(new)}")
        if wrong:
            raise NotProvisioned(f"missing on this Kafka: {'; '.join(wrong)}")


def is_reply(group: Group) -> bool:
    """A group that lives and dies with its consumer."""
    return bool(group.sources) and all(source.kind == "reply" for source in group.sources)


def _addresses(wanted: Iterable[Address | Group]) -> Iterable[Address]:
    for want in wanted:
        if isinstance(want, Address):
            yield want
            continue
        yield from want.sources
        if not is_reply(want):
            yield want.retry
            yield want.dead


def _listed(channels: dict[str, Address]) -> str:
    return ", ".join(f"topic {topic} ({address})" for topic, address in channels.items())
