"""What the services of the shop say to each other."""

from decimal import Decimal

from pydantic import BaseModel

from eventkit import Command, Event


class Quote(BaseModel):
    price: Decimal
    days: int


class PlaceOrder(Command, service="orders"):
    order_id: str
    item: str
    address: str


class QuoteShipping(Command[Quote], service="shipping"):
    address: str


class OrderEvent(Event, topic="orders", key="order_id"):
    """What happened to an order. One topic and one key: everything about an order stays in order."""

    order_id: str


class OrderPlaced(OrderEvent):
    item: str
    price: Decimal
    address: str


class OrderRefused(OrderEvent):
    item: str
    reason: str


class PaymentTaken(OrderEvent):
    price: Decimal
    address: str
    attempts: int


class ParcelSent(OrderEvent):
    tracking: str


class OrderClosed(OrderEvent):
    pass
