"""Wrong uses that type checkers refuse. Each wrong line says so; a line that is no longer refused fails the check.

Checked by mypy (strict: unused ignores are errors) and pyright, never run.
"""

import eventkit
from eventkit import Command, Context, Event, Service


class OrderPlaced(Event, topic="orders"):
    order_id: str


class CountParcels(Command[int], service="shipping"):
    pass


class BookParcel(Command, service="shipping"):
    pass


service = Service("shipping")


async def wrong_verbs(bus: eventkit.Bus) -> None:
    await bus.publish(BookParcel())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await bus.publish_many([BookParcel()])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    await bus.send(OrderPlaced(order_id="7"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await bus.request(OrderPlaced(order_id="7"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await bus.publish(OrderPlaced)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def wrong_replies(bus: eventkit.Bus) -> None:
    count: str = await bus.request(CountParcels())  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    count.title()


def wrong_fields() -> None:
    OrderPlaced(order_id=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    OrderPlaced()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    OrderPlaced("7")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    OrderPlaced(order_id="7").order_id = "8"  # type: ignore[misc]  # mypy alone sees it


def wrong_contexts(context: Context) -> None:
    context.publish(BookParcel())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    context.send(OrderPlaced(order_id="7"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@service.handles(CountParcels)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def says_text(command: CountParcels) -> str:
    return "one"


@service.handler  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
async def takes_no_message(text: str) -> None: ...


@service.handler(group=7)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
async def in_no_group(event: OrderPlaced) -> None: ...


@service.handles(OrderPlaced)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def an_event(event: OrderPlaced) -> None: ...
