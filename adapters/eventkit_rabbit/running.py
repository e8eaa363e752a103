"""What lives from the adapter's start to its stop: connections, publishers, consumers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from aiormq import exceptions as amqp

from eventkit import headers as h
from eventkit.adapter import Address, Consumer, Delivery, Group, Message, Provision, Receive
from eventkit_rabbit import delay, follow
from eventkit_rabbit.browse import Browser
from eventkit_rabbit.confirms import Answer, Job
from eventkit_rabbit.consume import RabbitConsumer
from eventkit_rabbit.copies import Copies
from eventkit_rabbit.groups import Groups
from eventkit_rabbit.link import Link
from eventkit_rabbit.management import Management
from eventkit_rabbit.names import Names, lives_with_consumer
from eventkit_rabbit.publish import Publisher
from eventkit_rabbit.queues import Queues
from eventkit_rabbit.reply import ReplyConsumer
from eventkit_rabbit.routes import Routes, nowhere
from eventkit_rabbit.settings import RabbitSettings
from eventkit_rabbit.topology import Topology
from eventkit_rabbit.waiting import Waiting
from eventkit_rabbit.wire import Wire

_LIMIT_3, _LIMIT_4 = 134_217_728, 16_777_216
"""Bytes: the default max_message_size of RabbitMQ 3 and 4."""
_START = 10.0


class Running:
    """One connection for publishing, one for copies (`copies`), one for all else, so that a publisher that the broker
    holds back (memory or disk alarm) never keeps consumers from acknowledging."""

    def __init__(
        self, link: Callable[[str], Link], names: Names, settings: RabbitSettings, management: Management | None
    ) -> None:
        self._publishing = link("publish")
        self._consuming = link("consume")
        self._names = names
        self._settings = settings
        self._deadline = settings.publish_timeout.total_seconds()
        self._created: dict[str, Group] = {}
        self._consumers: set[RabbitConsumer] = set()
        self._replies: dict[str, ReplyConsumer] = {}
        self.topology = Topology(self._consuming, names, Queues(settings.replicas, management))
        self.waiting = Waiting(self.topology, management)
        self._groups = Groups(self._consuming, names, self.topology, management)
        self._routes = Routes(self.topology)
        self.browser = Browser(self._consuming, names, self.topology)
        self.publisher = self._publisher(_LIMIT_3)
        self._copies = Copies(link("copies"), self.topology.silent, self._deadline / 2)

    def _publisher(self, limit: int) -> Publisher:
        return Publisher(self._publishing, limit, self._deadline)

    @property
    def error(self) -> Exception | None:
        away = self._publishing.error or self._consuming.error or self._copies.error
        if away is None and (job := self.publisher.overdue(self._deadline / 2)) is not None:
            return TimeoutError(
                f"RabbitMQ does not confirm what is published to {job.message.address}: a queue that is bound to it "
                "may have no leader, see rabbitmq-queues quorum_status"
            )
        return away

    async def open(self) -> None:
        wire = await self._publishing.open()
        await self._consuming.open()
        self._routes.frame_max = wire.frame_max
        major = wire.version.partition(".")[0]
        default = _LIMIT_3 if major.isdecimal() and int(major) < 4 else _LIMIT_4
        self.publisher.limit = self._settings.max_message_bytes or default
        await self.publisher.ready()

    async def close(self, timeout: float) -> None:
        end = asyncio.get_running_loop().time() + timeout
        consumers: list[Consumer] = [*self._consumers, *self._replies.values()]
        self._consumers.clear()
        self._replies.clear()
        if consumers:
            await asyncio.gather(*(consumer.stop(timeout * 0.8) for consumer in consumers), return_exceptions=True)
        left = max(end - asyncio.get_running_loop().time(), 0.1)
        await asyncio.gather(self._publishing.close(left), self._consuming.close(left), self._copies.close(left))

    async def provision(self, wanted: Collection[Address | Group], how: Provision) -> None:
        await self.topology.provision(wanted, how)
        for one in wanted:
            if isinstance(one, Group):
                if how is Provision.CREATE:
                    self._created[one.name] = one
                else:
                    self._created.pop(one.name, None)

    async def groups(self, names: Collection[str] | None) -> Sequence[Group]:
        return await self._groups.find(names)

    async def disband(self, name: str) -> None:
        await self._groups.remove(name)
        self._created.pop(name, None)

    def follow(self, address: Address) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return follow.follow(self._consuming, address, self._names.exchange(address))

    # --- publish ---

    async def publish(self, messages: Sequence[Message]) -> Sequence[Answer]:
        answers: list[Answer] = [None] * len(messages)
        labels = await self._make_ready(messages, answers)
        jobs: list[Job] = []
        copies: list[Job] = []
        requests: dict[str, list[Job]] = {}
        now = time.time()
        for index, message in enumerate(messages):
            if answers[index] is not None:
                continue
            asks = message.headers.get(h.REPLY_TO) if self._replies else None
            limit = self.publisher.limit
            job = self._routes.job(message, index, now, limit, asks in self._replies, labels.get(index))
            if not isinstance(job, Job):
                answers[index] = job
            elif asks in self._replies:
                assert asks is not None
                requests.setdefault(asks, []).append(job)
            elif message.address.kind in ("retry", "dead"):
                copies.append(job)
            else:
                jobs.append(job)
        wire, young = self._copies.now(), self._young(copies)
        work = [self.publisher.publish(jobs, answers)] if jobs else []
        work += [self._replies[name].publisher.publish(own, answers) for name, own in requests.items()]
        if copies:
            work.append(self._copies.publish(copies, answers, self.publisher.limit))
        if len(work) == 1:
            await work[0]
        else:
            await asyncio.gather(*work)
        for index, answer in enumerate(answers):
            if isinstance(answer, amqp.ChannelNotFoundEntity):
                self.topology.forget()
                answers[index] = nowhere(messages[index].address)
        if young:
            await self._mature([job for job in copies if job.route.routing_key in young], answers, wire, young)
        return answers

    def _young(self, jobs: Sequence[Job]) -> dict[str, float]:
        """The delay queues that these go to and that a crash of the broker would take, and until when."""
        young = self.topology.young
        if young:
            now = asyncio.get_running_loop().time()
            for name in [name for name, safe in young.items() if safe <= now]:
                del young[name]
        return {name: young[name] for job in jobs if (name := job.route.routing_key) in young} if young else {}

    async def _mature(
        self, jobs: Sequence[Job], answers: list[Answer], before: Wire | None, young: Mapping[str, float]
    ) -> None:
        """Confirm what went to a delay queue that was just made only when a crash of the broker would not take it.

        `before`, `young`: the connection and those queues as they were before anything was published.
        """
        held = [job for job in jobs if answers[job.place] is None]
        if not held:
            return
        wire = self._copies.now()
        if wire is not None and before in (None, wire):
            left = max(young[job.route.routing_key] for job in held) - asyncio.get_running_loop().time()
            await asyncio.wait([wire.lost], timeout=max(left, 0.0))
        if wire is None or before not in (None, wire) or wire.lost.done():
            for job in held:
                answers[job.place] = amqp.AMQPConnectionError("the broker was lost before the new delay queue was safe")

    async def _make_ready(self, messages: Sequence[Message], answers: list[Answer]) -> dict[int, str]:
        """Look for exchanges that are not known, make delay queues that are needed for the first time.

        The rung of each message that waits: chosen once, since a shorter one would do when this one is made.
        """
        labels: dict[int, str] = {}
        wanted: dict[tuple[Address, str], list[int]] = {}
        now = 0.0
        for index, message in enumerate(messages):
            address = message.address
            kind = address.kind
            if kind in ("topic", "inbox"):
                exchange = self._names.exchange(address)
                if exchange not in self.topology.exchanges:
                    wanted.setdefault((address, ""), []).append(index)
            elif kind == "retry" and message.due is not None:
                wait = delay.milliseconds(message.due, now := now or time.time())
                if not wait:
                    continue
                label = labels[index] = self.topology.label(address.name, wait)
                if not self.topology.knows_rung(self._names.rung(address.name, label)):
                    wanted.setdefault((address, label), []).append(index)
        for (address, label), indices in wanted.items():
            error = await self._make(address, label)
            if error is not None:
                for index in indices:
                    answers[index] = error
        return labels

    async def _make(self, address: Address, label: str) -> Answer:
        try:
            async with asyncio.timeout(self._deadline):
                if label:
                    found = await self.topology.create_rung(address.name, label) is not None
                else:
                    found = await self.topology.has_exchange(self._names.exchange(address))
        except Exception as error:  # noqa: BLE001 (the answer for each message that needs it)
            return error
        return None if found else nowhere(address)

    # --- consume ---

    async def consume(self, group: Group, receive: Receive, in_flight: int) -> Consumer:
        if lives_with_consumer(group):
            return await self._listen(group, receive)
        self._consumers = {consumer for consumer in self._consumers if not consumer.stopped}
        consumer = RabbitConsumer(
            self._consuming,
            self._names,
            group,
            receive,
            in_flight=in_flight,
            publish=self.publish,
            provide=lambda: self._provide_again(group),
            timeout=self._settings.consumer_timeout,
        )
        await consumer.start()
        self._consumers.add(consumer)
        return consumer

    async def _provide_again(self, group: Group) -> None:
        known = self._created.get(group.name)
        if known is not None:
            self.topology.forget()
            await self.topology.provision([known], Provision.CREATE)

    async def _listen(self, group: Group, receive: Receive) -> Consumer:
        if len(group.sources) != 1:
            raise ValueError(f"group {group.name}: a reply address stands alone")
        address = group.sources[0]
        consumer = ReplyConsumer(self._publishing, self._publisher(self.publisher.limit), address, receive)
        await consumer.start(_START)
        self._replies[address.name] = consumer
        return consumer
