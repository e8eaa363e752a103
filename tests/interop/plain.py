"""Plain FastStream on each broker: how it names a channel that eventkit uses too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from eventkit import names

Handler = Callable[..., Awaitable[None]]


class Plain(NamedTuple):
    """A FastStream broker object, and the words in which one subscribes and publishes on it."""

    broker: Any
    subscribe: Callable[[str, str], Callable[[Handler], Any]]
    """Of a channel's physical name and a name for the reader; the type stands in the subject or routing key."""
    publish: Callable[..., Awaitable[Any]]
    """Of a body, a channel's physical name and keywords such as headers."""


def plain(name: str, url: str) -> Plain:
    """Made without I/O."""
    return _MAKERS[name](url)


def physical(name: str, namespace: str, topic: str) -> str:
    """What a topic of ours is called on the broker."""
    return getattr(names, name)(namespace).channel("topic", topic)


def _redis(url: str) -> Plain:
    from faststream.redis import RedisBroker, StreamSub

    broker = RedisBroker(url, logger=None)

    def subscribe(channel: str, reader: str) -> Callable[[Handler], Any]:
        return broker.subscriber(stream=StreamSub(channel, group=reader, consumer="one"))

    def publish(body: object, channel: str, **given: Any) -> Awaitable[Any]:
        return broker.publish(body, stream=channel, **given)

    return Plain(broker, subscribe, publish)


def _nats(url: str) -> Plain:
    from faststream.nats import JStream, NatsBroker

    broker = NatsBroker(url, logger=None)

    def subscribe(channel: str, reader: str) -> Callable[[Handler], Any]:
        stream = JStream(channel.replace(".", "="), declare=False)
        subject = f"{channel}.>" if "=" in channel else channel  # our own topics: a type follows in the subject
        return broker.subscriber(subject, stream=stream, durable=reader, pull_sub=True)

    def publish(body: object, channel: str, **given: Any) -> Awaitable[Any]:
        return broker.publish(body, channel, stream=channel.replace(".", "="), timeout=5.0, **given)

    return Plain(broker, subscribe, publish)


def _rabbit(url: str) -> Plain:
    from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue

    broker = RabbitBroker(url, logger=None)

    def subscribe(channel: str, reader: str) -> Callable[[Handler], Any]:
        queue = RabbitQueue(reader, routing_key="#")
        return broker.subscriber(queue, RabbitExchange(channel, type=ExchangeType.TOPIC))

    def publish(body: object, channel: str, **given: Any) -> Awaitable[Any]:
        exchange = RabbitExchange(channel, type=ExchangeType.TOPIC)
        return broker.publish(body, exchange=exchange, routing_key="placed", persist=True, **given)

    return Plain(broker, subscribe, publish)


def _kafka(url: str) -> Plain:
    from faststream.kafka import KafkaBroker

    broker = KafkaBroker(url.removeprefix("kafka://"), logger=None)

    def subscribe(channel: str, reader: str) -> Callable[[Handler], Any]:
        return broker.subscriber(channel, group_id=reader, auto_offset_reset="earliest")

    def publish(body: object, channel: str, **given: Any) -> Awaitable[Any]:
        return broker.publish(body, channel, **given)

    return Plain(broker, subscribe, publish)


_MAKERS: dict[str, Callable[[str], Plain]] = {"redis": _redis, "nats": _nats, "rabbit": _rabbit, "kafka": _kafka}
