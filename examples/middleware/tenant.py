"""Whose message it is: from a header, for handlers to see, and on all that they send.

Who publishes outside of a handler says it on his bus: `bus.carrying(headers={"x-tenant": "acme"})`.
"""

from contextvars import ContextVar

from eventkit import CallNext, Delivery, GiveUp, Outgoing

HEADER = "x-tenant"

tenant: ContextVar[str] = ContextVar("tenant")
"""Of the message that is handled. Each message has a context of its own, so nothing has to be reset."""


async def from_header(delivery: Delivery, call_next: CallNext) -> object:
    """For `Service(middleware=...)`."""
    name = delivery.message.headers.get(HEADER)
    if name is None:
        raise GiveUp(f"the message says no {HEADER}")  # a dead letter, without another attempt
    tenant.set(name)
    return await call_next(delivery)


def carried_on(outgoing: Outgoing, delivery: Delivery) -> Outgoing:
    """For `Service(outgoing=...)`. It asks the delivery, not the context variable: of a batch each has its own."""
    name = delivery.message.headers.get(HEADER)
    return outgoing if name is None else outgoing._replace(headers={HEADER: name, **outgoing.headers})
