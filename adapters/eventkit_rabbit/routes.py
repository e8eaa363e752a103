"""Where each message goes on the broker, and whether it may go there."""

from __future__ import annotations

from eventkit.adapter import Address, Message
from eventkit.errors import InvalidMessage, MessageTooLarge, NoOwner, NotProvisioned
from eventkit_rabbit import delay, encode
from eventkit_rabbit.confirms import Job, Route
from eventkit_rabbit.publish import HEADROOM, routing_key, too_large
from eventkit_rabbit.reply import DIRECT
from eventkit_rabbit.topology import Topology


class Routes:
    """Makes messages ready to be written."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._names = topology.names
        self.frame_max = 131_072
        """Bytes that the headers of a message may take: AMQP puts them in one frame."""

    def job(
        self, message: Message, place: int, now: float, limit: int, asks: bool, label: str | None
    ) -> Job | Exception:
        """Ready to be written; else the answer. `asks`: the reply comes to this connection. `label`: of the rung where
        it waits."""
        try:
            route = self._route(message, now, asks, label)
            job = Job(message, route, encode.encode(message, route.extra), place)
        except InvalidMessage as error:
            return error
        refused = too_large(job, limit)
        if refused is not None:
            return refused
        room = self.frame_max - 20 - (0 if route.copy else HEADROOM)
        if len(job.properties) > room:
            what = f"the headers of {message.type or 'a message'} to {message.address}, which AMQP puts in one frame,"
            return MessageTooLarge(what, len(job.properties), room)
        return job

    def _route(self, message: Message, now: float, asks: bool, label: str | None) -> Route:
        address = message.address
        extra = encode.Extra(reply_to=DIRECT) if asks else encode.PLAIN
        match address.kind:
            case "topic":
                return Route(self._names.exchange(address), routing_key(message.type), False, None, extra)
            case "inbox":
                nobody = lambda: nowhere(address)  # noqa: E731
                return Route(self._names.exchange(address), routing_key(message.type), True, nobody, extra)
            case "reply":
                if len(address.name.encode(errors="replace")) > encode.SHORT:  # a requester chooses it
                    raise InvalidMessage(f"reply_to {address.name[:40]!r}... is no address for a reply")
                return Route("", address.physical or address.name, False, None, encode.Extra(persistent=False), True)
            case "dead":
                return Route("", self._names.dead(address.name), True, lambda: nowhere(address), extra, True)
            case "retry":
                return self._retry(address, delay.milliseconds(message.due, now), now, label, extra)

    def _retry(self, address: Address, wait: int, now: float, label: str | None, extra: encode.Extra) -> Route:
        if not wait or label is None:
            return Route("", self._names.queue(address.name), True, lambda: nowhere(address), extra, True)
        name, longest = self._names.rung(address.name, label), delay.length(label)

        def gone() -> Exception:
            self._topology.rungs.discard(name)  # the next one makes it again
            return NotProvisioned(f"the delay queue {name} was deleted from RabbitMQ")

        extra = extra._replace(
            expiration=str(min(wait, longest)),
            until=round(now * 1000) + wait if wait > longest else None,
        )
        return Route("", name, True, gone, extra, True)


def nowhere(address: Address) -> Exception:
    """The answer for what is not there."""
    if address.kind == "inbox":
        return NoOwner(f"service {address.name} has no inbox on this RabbitMQ: no group that owns it was provisioned")
    return NotProvisioned(f"{address} is not on this RabbitMQ")
