"""Quotes and sends parcels."""

import logging
from decimal import Decimal

from eventkit import GiveUp, Reject, Service
from examples.shop.messages import ParcelSent, PaymentTaken, Quote, QuoteShipping

log = logging.getLogger("shipping")
shipping = Service("shipping")


@shipping.handler
async def quote(command: QuoteShipping) -> Quote:
    # Command[Quote] promises a Quote: another return annotation would be refused when this module is imported.
    if "Antarctica" in command.address:
        raise Reject("we do not ship to Antarctica")
    return Quote(price=Decimal("4.90"), days=2)


@shipping.handler
async def send(event: PaymentTaken) -> ParcelSent:
    if not any(character.isdigit() for character in event.address):
        # No attempt will find it: a dead letter now, kept for a person who corrects the address.
        raise GiveUp(f"no house number in {event.address!r}")
    log.info("parcel for order %s goes to %s", event.order_id, event.address)
    return ParcelSent(order_id=event.order_id, tracking=f"TR-{event.order_id.upper()}")
