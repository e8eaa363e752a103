"""Services that use all that a document must be able to say."""

from __future__ import annotations

import enum
import ipaddress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, computed_field
from typing_extensions import deprecated

from eventkit import Command, Event, GiveUp, Reject, Retry, Router, Service, Topic


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Priority(enum.IntEnum):
    LOW = 1
    HIGH = 10


class Address(BaseModel):
    """Where people live."""

    street: str = Field(description="With the house number.", min_length=1, max_length=80)
    postcode: str = Field(pattern=r"^[A-Z]{2}\d{4}$", examples=["NL1234"])
    country: Literal["NL", "DE"] = "NL"


class Card(BaseModel):
    kind: Literal["card"]
    number: str = Field(pattern=r"(?P<last>\d{4})\z")


class Cash(BaseModel):
    kind: Literal["cash"]
    change: Decimal = Decimal(0)


class Node(BaseModel):
    """Holds itself."""

    name: str
    children: list[Node] = []
    parent: Node | None = None


class OrderPlaced(Event, topic="samples.orders", key="order_id", version=2):
    """Somebody ordered.

    The basket is paid later, see `OrderPaid`.
    """

    model_config = ConfigDict(populate_by_name=True)

    order_id: UUID
    at: datetime
    day: date | None = None
    slot: time = time(9, 30)
    lasts: timedelta = timedelta(minutes=15)
    total: Decimal = Field(gt=0, decimal_places=2, examples=[12.5], description="In euros.")
    weight: float = Field(ge=0, lt=1000)
    count: Annotated[int, Field(ge=1, multiple_of=1)] = 1
    colour: Colour = Colour.RED
    colours: set[Colour] = Field(default_factory=set)
    priority: Priority = Priority.LOW
    ship_to: Address = Field(alias="shipTo", description="Where to.")
    bill_to: Address | None = Field(default=None, alias="billTo")
    paid_with: Annotated[Card | Cash, Field(discriminator="kind")]
    pair: tuple[int, str]
    many: tuple[int, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    tree: Node | None = None
    link: HttpUrl | None = None
    host: ipaddress.IPv4Address | None = None
    raw: bytes = b""
    old: str | None = Field(default=None, deprecated="use `labels`")

    @computed_field
    @property
    def is_large(self) -> bool:
        """More than a hundred euros."""
        return self.total > 100


@OrderPlaced.upcast(from_version=1)
def _from_first(data: dict[str, object]) -> dict[str, object]:
    return data


class OrderPaid(Event, topic="samples.orders", key="order_id", type="orders.paid"):
    model_config = ConfigDict(json_schema_extra={"examples": [{"order_id": 7, "total": 12.5}]})

    order_id: int
    total: Decimal


@deprecated("OrderPaid says more")
class OrderPayed(Event, topic="samples.orders"):
    order_id: str


class Legacy(Event, topic=Topic("samples.legacy", physical="LEGACY/orders")):
    text: str = Field(max_length=3)


class Quote(BaseModel):
    price: Decimal
    days: int


class QuoteShipping(Command[Quote], service="samples-shipping"):
    """What does it cost?"""

    to: Address
    weight: Decimal = Decimal("0.5")


class CancelOrder(Command, service="samples-shipping", key="order_id"):
    order_id: str | None
    reason: str = "none"


class ListQuotes(Command[list[Quote] | None], service="samples-shipping", type="list/quotes"):
    pass


class RemindLater(Command, service="samples-elsewhere"):
    text: str


class OutOfPaper(Exception):
    pass


shipping = Service(
    "samples-shipping",
    retry=Retry(attempts=3, never=(OutOfPaper,)),
    timeout=timedelta(seconds=30),
    publishes=(OrderPayed,),
)
router = Router()


@shipping.handler
async def quote(command: QuoteShipping) -> Quote:
    """Asks the carriers.

    The cheapest one wins.
    """
    raise Reject(f"we do not ship to {command.to.country}")


@shipping.handler
async def cancel(command: CancelOrder) -> list[OrderPaid | RemindLater] | None: ...


@shipping.handler
def quotes(command: ListQuotes) -> list[Quote] | None:
    raise GiveUp


@router.handler(retry=Retry(attempts=2, in_order=True))
async def both(event: OrderPlaced | Legacy) -> OrderPaid | None: ...


@router.handler(group="audit", topic="samples.orders")
async def note(event: Event) -> None: ...


shipping.include(router)

web = Service("samples-web", start="earliest")


@web.handler
async def thank(event: OrderPaid) -> tuple[OrderPlaced, QuoteShipping] | None: ...


services = (shipping, web)
