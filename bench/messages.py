"""The message of all measurements: about 200 bytes of JSON in a nested model."""

from __future__ import annotations

from datetime import UTC, datetime

import uuid_utils
from pydantic import BaseModel

from eventkit import Command, Event


class Line(BaseModel):
    sku: str
    quantity: int
    price: float


class Order(BaseModel):
    """What the raw clients and FastStream validate."""

    order_id: str
    customer: str
    lines: list[Line]
    sent: float = 0.0


class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str
    customer: str
    lines: list[Line]
    sent: float = 0.0


class Ping(Command[int], service="bench"):
    number: int


class RawPing(BaseModel):
    """A request, as the raw clients know it."""

    number: int


def content(number: int) -> dict[str, object]:
    return {
        "order_id": f"order-{number % 1000}",
        "customer": f"customer-{number}",
        "lines": [
            {"sku": "SKU-000-111", "quantity": 2, "price": 9.99},
            {"sku": "SKU-000-222", "quantity": 1, "price": 19.5},
        ],
    }


def orders(count: int) -> list[Order]:
    return [Order.model_validate(content(number)) for number in range(count)]


def events(count: int) -> list[OrderPlaced]:
    return [OrderPlaced.model_validate(content(number)) for number in range(count)]


def raw_headers(order: Order) -> dict[str, str]:
    """What a hand-written client writes to put the same headers on the wire."""
    message_id = str(uuid_utils.uuid7())
    return {
        "ce-specversion": "1.0",
        "ce-id": message_id,
        "ce-source": "bench",
        "ce-type": "OrderPlaced",
        "ce-time": datetime.now(UTC).isoformat(),
        "ce-dataversion": "1",
        "content-type": "application/json",
        "ce-correlationid": message_id,
        "correlation_id": message_id,
        "message_id": message_id,
        "ce-subject": order.order_id,
        "ce-partitionkey": order.order_id,
    }


NOBODY = Order(order_id="0", customer="", lines=[])
"""Whose headers a raw request has."""
