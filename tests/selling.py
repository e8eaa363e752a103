"""Messages of a small shop. Tests import this file, and copy it to where a command finds it in the current folder."""

from decimal import Decimal

from pydantic import BaseModel, Field

from eventkit import Command, Event


class Quote(BaseModel):
    price: Decimal
    note: str = ""


class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str
    total: Decimal = Decimal(0)
    placed_by: str | None = Field(default=None, alias="by")


class Tick(Event, topic="ticks"):
    number: int


class Book(Command, service="shop"):
    order_id: str


class Ask(Command[Quote], service="shop", type="shop.ask"):
    wish: str


class Unowned(Command, service="nobody"):
    number: int = 0
