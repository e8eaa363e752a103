"""How a quorum queue is declared: the arguments of ours, and what becomes of those that an older one has."""

from __future__ import annotations

import logging
import re
from typing import Any

from aiormq import exceptions as amqp

from eventkit.errors import NotProvisioned, SettingsError
from eventkit_rabbit.management import Management
from eventkit_rabbit.wire import Wire

log = logging.getLogger("eventkit.rabbit")

_NO_LIMIT = 1_000_000_000
"""Deliveries after which the broker itself gives up. RabbitMQ 4 would do so after 20, a browser's visits included."""
_REPLICAS = "x-quorum-initial-group-size"
_current = re.compile(r"current is (?:the value )?'(\d+)'")


class Queues:
    """Declares them. `replicas`: how many nodes are to hold a new one; None: as the broker is set."""

    def __init__(self, replicas: int | None, management: Management | None) -> None:
        self._replicas = replicas
        self._management = management
        self._fits = False
        self._said = False

    async def declare(self, wire: Wire, queue: str, *, dead_letters_to: str | None = None) -> None:
        """NotProvisioned: it is there, and another than ours. SettingsError: the cluster is too small for it."""
        await self._check()
        arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": _NO_LIMIT}
        if dead_letters_to is not None:
            # at-least-once needs reject-publish; the default strategy loses messages when a node dies
            arguments |= {
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": dead_letters_to,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
        wanted = {} if self._replicas is None else {_REPLICAS: self._replicas}
        try:
            try:
                await _declare(wire, queue, {**arguments, **wanted})
            except amqp.ChannelPreconditionFailed as error:
                if f"'{_REPLICAS}'" not in str(error):
                    raise
                # How many hold it can be changed, by which nothing is lost; with how many it was made cannot.
                found = _current.search(str(error))
                made = {} if found is None else {_REPLICAS: int(found[1])}
                await _declare(wire, queue, {**arguments, **made})
                self._say(queue, made.get(_REPLICAS))
        except amqp.ChannelPreconditionFailed as error:
            raise NotProvisioned(
                f"queue {queue} exists with other settings than eventkit's: {error}; RabbitMQ cannot change them: "
                "let the queue run empty, delete it and start again"
            ) from error

    def _say(self, queue: str, made: int | None) -> None:
        if self._replicas is None or self._said:  # none is asked for: any number is right
            return
        self._said = True
        log.warning(
            "EVENTKIT_RABBIT__REPLICAS=%d is for queues that are created; %s, for one, was made %s and stays as it is: "
            "rabbitmq-queues grow, or shrink, changes on how many nodes a queue is kept",
            self._replicas,
            queue,
            "without it" if made is None else f"for {made}",
        )

    async def _check(self) -> None:
        """RabbitMQ itself makes a queue on fewer nodes where there are not as many, and says nothing."""
        if self._fits or self._replicas is None or self._management is None:
            return
        try:
            nodes = await self._management.nodes()
        except ConnectionError as error:
            log.warning("whether this RabbitMQ has EVENTKIT_RABBIT__REPLICAS=%d nodes: %s", self._replicas, error)
        else:
            if nodes < self._replicas:
                raise SettingsError(
                    f"EVENTKIT_RABBIT__REPLICAS is {self._replicas}, and this RabbitMQ has {nodes} "
                    f"{'node' if nodes == 1 else 'nodes'}: add nodes to the cluster, or set it to {nodes} or less"
                )
        self._fits = True


async def _declare(wire: Wire, queue: str, arguments: dict[str, Any]) -> None:
    async with wire.scratch() as channel:
        await channel.queue_declare(queue, durable=True, arguments=arguments)
