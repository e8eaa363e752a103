"""Keeps a record of all that happens to orders, whatever its type."""

from collections import defaultdict

from eventkit import Event, Service
from examples.shop.messages import OrderEvent

audit = Service("audit")

journal: dict[str, list[OrderEvent]] = defaultdict(list)
"""By order. A real service would have a database."""


@audit.handler(topic="orders")
async def note(event: Event) -> None:
    if isinstance(event, OrderEvent):
        journal[event.order_id].append(event)
