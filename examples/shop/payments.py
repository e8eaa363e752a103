"""Takes the money. The card terminal is not always there: that is what retries are for."""

import logging
from datetime import timedelta

from eventkit import Context, Retry, Service
from examples.shop.messages import OrderPlaced, PaymentTaken

log = logging.getLogger("payments")
payments = Service("payments", retry=Retry(attempts=5, first_delay=timedelta(seconds=0.3)))


class TerminalBusy(Exception):
    """Worth another attempt."""


@payments.handler
async def charge(event: OrderPlaced, context: Context) -> PaymentTaken:
    if event.item == "chair" and context.attempt < 3:
        raise TerminalBusy("the card terminal does not answer")
    log.info("charged %s for order %s", event.price, event.order_id)
    return PaymentTaken(order_id=event.order_id, price=event.price, address=event.address, attempts=context.attempt)
