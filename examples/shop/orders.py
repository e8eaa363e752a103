"""Takes orders, and closes them when their parcel is on its way."""

import logging
from decimal import Decimal

from eventkit import Reject, Service
from examples.shop.messages import OrderClosed, OrderPlaced, OrderRefused, ParcelSent, PlaceOrder

log = logging.getLogger("orders")
orders = Service("orders", publishes=(OrderRefused,))  # no signature shows what goes out with a Reject

PRICES = {"lamp": Decimal("39.90"), "chair": Decimal("120.00"), "vase": Decimal("18.50")}


@orders.handler
async def place(command: PlaceOrder) -> OrderPlaced:
    price = PRICES.get(command.item)
    if price is None:
        # A finished outcome, no failure: nothing is tried again, and who asked gets CommandRejected.
        refused = OrderRefused(order_id=command.order_id, item=command.item, reason="sold out")
        raise Reject(f"the {command.item} is sold out", refused)
    return OrderPlaced(order_id=command.order_id, item=command.item, price=price, address=command.address)


@orders.handler
async def close(event: ParcelSent) -> OrderClosed:
    log.info("order %s is closed, its parcel is %s", event.order_id, event.tracking)
    return OrderClosed(order_id=event.order_id)
