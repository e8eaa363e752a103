"""What is particular to one broker: bindings, from the official binding schemas only.

What these have no word for (a stream, a durable, a header's name on Kafka) stands under `x-eventkit` beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from eventkit import names
from eventkit.adapter import Address, Group
from eventkit.asyncapi.envelope import Kind

Binding: TypeAlias = dict[str, Any]
OWN = "x-eventkit"

_KAFKA = {"bindingVersion": "0.5.0"}
_AMQP = {"bindingVersion": "0.3.0"}


class Bindings(Protocol):
    """The bindings of one broker. Empty: there are none."""

    def channel(self, address: Address) -> Binding: ...

    def receive(self, group: Group) -> Binding: ...

    def send(self, kind: Kind) -> Binding: ...

    def message(self, type_: str, key: Mapping[str, Any] | None) -> Binding:
        """`key` is the schema of the message's key; None: it has none."""
        ...

    def headers(self) -> Binding:
        """How the headers' names differ from those in the document."""
        ...


def bindings(broker: str | None, namespace: str, vhost: str) -> Bindings:
    """Of a broker by its name; of none, or one that is not ours: nothing."""
    match broker:
        case "kafka":
            return _Kafka(namespace)
        case "rabbit":
            return _Rabbit(namespace, vhost)
        case "nats":
            return _Nats(namespace)
        case "redis":
            return _Redis(namespace)
        case _:
            return _Nothing()


class _Nothing:
    def channel(self, address: Address) -> Binding:
        return {}

    def receive(self, group: Group) -> Binding:
        return {}

    def send(self, kind: Kind) -> Binding:
        return {}

    def message(self, type_: str, key: Mapping[str, Any] | None) -> Binding:
        return {}

    def headers(self) -> Binding:
        return {}


class _Kafka(_Nothing):
    def __init__(self, namespace: str) -> None:
        self._naming = names.kafka(namespace)

    def channel(self, address: Address) -> Binding:
        return {"kafka": {"topic": self._naming.channel(*address), **_KAFKA}}

    def receive(self, group: Group) -> Binding:
        name = self._naming.group(group.name)
        return {"kafka": {"groupId": {"type": "string", "enum": [name]}, **_KAFKA}}

    def message(self, type_: str, key: Mapping[str, Any] | None) -> Binding:
        return {} if key is None else {"kafka": {"key": dict(key), **_KAFKA}}

    def headers(self) -> Binding:
        return {OWN: {"headers": "UTF-8; names that begin with ce- begin with ce_ instead. The key is the record's."}}


class _Rabbit(_Nothing):
    def __init__(self, namespace: str, vhost: str) -> None:
        self._naming = names.rabbit(namespace)
        self._vhost = vhost

    def channel(self, address: Address) -> Binding:
        exchange = {
            "name": self._naming.channel(*address),
            "type": "topic",
            "durable": True,
            "autoDelete": False,
            "vhost": self._vhost,
        }
        return {"amqp": {"is": "routingKey", "exchange": exchange, **_AMQP}}

    def receive(self, group: Group) -> Binding:
        return {"amqp": {"ack": True, **_AMQP}, OWN: {"queue": self._naming.group(group.name), "bindingKey": "#"}}

    def send(self, kind: Kind) -> Binding:
        return {"amqp": {"deliveryMode": 2, "mandatory": kind == "command", **_AMQP}}

    def message(self, type_: str, key: Mapping[str, Any] | None) -> Binding:
        return {"amqp": {"messageType": type_, **_AMQP}}

    def headers(self) -> Binding:
        properties = "content-type, correlation_id, message_id and reply_to are properties"
        return {OWN: {"headers": f"{properties}; the type is the routing key too."}}


class _Nats(_Nothing):
    def __init__(self, namespace: str) -> None:
        self._naming = names.nats(namespace)

    def channel(self, address: Address) -> Binding:
        if address.physical is not None:
            return {OWN: {"subject": address.physical}}
        name = self._naming.channel(*address)
        return {OWN: {"stream": name, "subject": f"{name}.<type>"}}

    def receive(self, group: Group) -> Binding:
        # not the binding's `queue`, which is a queue group of core NATS
        return {OWN: {"durable": self._naming.group(group.name)}}

    def headers(self) -> Binding:
        return {OWN: {"headers": "Names and values are percent-encoded beyond printable ASCII."}}


class _Redis(_Nothing):
    def __init__(self, namespace: str) -> None:
        self._naming = names.redis(namespace)

    def channel(self, address: Address) -> Binding:
        if address.kind == "inbox":
            return {OWN: {"stream": f"{{{self._naming.group(address.name)}}}.{names.SUFFIXES['inbox']}"}}
        return {OWN: {"stream": self._naming.channel(*address)}}

    def receive(self, group: Group) -> Binding:
        return {OWN: {"consumerGroup": self._naming.group(group.name)}}

    def headers(self) -> Binding:
        return {OWN: {"headers": "In FastStream's binary envelope, field __data__ of an entry; percent-encoded."}}
