"""The whole shop in one process, on the broker of the environment: a short story with an end.

python -m examples.shop
EVENTKIT_BROKER=redis EVENTKIT_URL=redis://localhost:6379 python -m examples.shop
"""

import asyncio
import contextlib
import logging
import secrets
import sys
import time

import eventkit
from eventkit.log import to_console
from examples.shop import services
from examples.shop.audit import journal
from examples.shop.messages import OrderClosed, OrderRefused, PlaceOrder, QuoteShipping
from examples.shop.summary import dead_letters, summary

log = logging.getLogger("customer")

PATIENCE = 60.0
"""Seconds until it says what is missing, instead of waiting on."""


async def main() -> int:
    to_console()
    began = time.monotonic()
    # Orders of this run alone: the broker may still hold what an earlier one has left.
    run = secrets.token_hex(2)
    lamp, chair, piano, vase = (f"{run}-{number}" for number in (1, 2, 3, 4))
    async with eventkit.connect(service="customer") as bus, bus.run(*services) as running:
        quote = await bus.request(QuoteShipping(address="12 Mill Lane"))
        log.info("shipping costs %s and takes %d days", quote.price, quote.days)
        try:
            await bus.request(QuoteShipping(address="Base 4, Antarctica"))
        except eventkit.CommandRejected as rejection:
            log.info("a request was rejected: %s", rejection)

        await bus.send(PlaceOrder(order_id=lamp, item="lamp", address="12 Mill Lane"))
        await bus.send(PlaceOrder(order_id=chair, item="chair", address="7 Harbour Street"))
        await bus.send(PlaceOrder(order_id=piano, item="piano", address="1 Concert Square"))
        await bus.send(PlaceOrder(order_id=vase, item="vase", address="the house behind the hill"))

        async def ended() -> bool:
            closed = _has(lamp, OrderClosed) and _has(chair, OrderClosed) and _has(piano, OrderRefused)
            return closed and bool(await dead_letters(bus, run)) and running.at_work == 0

        complete = await ended()
        while not complete and time.monotonic() - began < PATIENCE:
            await asyncio.sleep(0.05)
            complete = await ended()
        told = await summary(bus, running, run, time.monotonic() - began)
    print(told, flush=True)
    if not complete:
        print(f"This is not the end of the story, but {PATIENCE:g} s are over.", file=sys.stderr)
    return 0 if complete else 1


def _has(order: str, kind: type[eventkit.Event]) -> bool:
    return any(isinstance(event, kind) for event in journal[order])


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        try:
            sys.exit(asyncio.run(main()))
        except eventkit.EventkitError as error:
            sys.exit(f"examples.shop: {error}")
