"""What happened in a run of the shop, for people."""

import eventkit
from eventkit import headers
from examples.shop import services, shipping
from examples.shop.audit import journal
from examples.shop.messages import OrderClosed, OrderEvent, OrderPlaced, OrderRefused, ParcelSent, PaymentTaken

BROKERS = ("redis", "nats", "rabbit", "kafka")


async def summary(bus: eventkit.Bus, running: eventkit.Running, run: str, seconds: float) -> str:
    """The orders of this run, what each service did, and what nobody could finish."""
    letters = await dead_letters(bus, run)
    lines = ["", f"The orders, as the audit service saw them ({bus.broker}, {seconds:.1f} s)", ""]
    stuck = {letter.key for letter in letters}
    for order, events in sorted(journal.items()):
        if order.startswith(run):
            steps = [_step(event) for event in events] + ["not sent: see below"] * (order in stuck)
            lines.append(f"  {order}  {', '.join(steps)}")
    lines += ["", f"  {'service':<10}{'handled':>9}{'rejected':>10}{'tried again':>13}{'dead letters':>14}"]
    for service in services:
        count = running.counts[service.name]
        lines.append(f"  {service.name:<10}{count.handled:>9}{count.rejected:>10}{count.retried:>13}{count.dead:>14}")
    lines += ["", "Dead letters of shipping, kept for a person to look at", ""]
    lines += [f"  {_why(letter)}" for letter in letters] or ["  none"]
    others = [broker for broker in BROKERS if broker != bus.broker]
    steps = {
        f"EVENTKIT_BROKER={others[0]} ./scripts/demo": f"the same on another broker ({', '.join(others[1:])} too)",
        "./scripts/test": "what eventkit promises, proved on all of them",
        "examples/shop/": "the four services that you just saw",
    }
    lines += ["", "Next", "", *(f"  {step:<38} {what}" for step, what in steps.items()), ""]
    return "\n".join(lines)


async def dead_letters(bus: eventkit.Bus, run: str) -> list[eventkit.Message]:
    """What the shipping service has given up on in this run."""
    group, _ = shipping.groups()["shipping"]
    browsed = [letter.message async for letter in bus.adapter.browse(group.dead)]
    return [message for message in browsed if (message.key or "").startswith(run)]


def _step(event: OrderEvent) -> str:
    match event:
        case OrderPlaced():
            return f"{event.item} ordered"
        case OrderRefused():
            return f"{event.item} refused: {event.reason}"
        case PaymentTaken(attempts=1):
            return "paid"
        case PaymentTaken():
            return f"paid at attempt {event.attempts}"
        case ParcelSent():
            return f"sent as {event.tracking}"
        case OrderClosed():
            return "closed"
    return type(event).__name__


def _why(letter: eventkit.Message) -> str:
    told = letter.headers
    return (
        f"{letter.type} key={letter.key}  {told[headers.REASON]} at attempt {told[headers.ATTEMPT]}: "
        f"{told[headers.ERROR_MESSAGE]}"
    )
