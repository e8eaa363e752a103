"""`eventkit tail`: what a topic holds, message by message, without disturbing any group."""

from __future__ import annotations

import json
from typing import Annotated, Optional, cast, get_args

import typer

from eventkit import headers as h
from eventkit.adapter import Address, Delivery, Provision
from eventkit.bus import Bus
from eventkit.cli_broker import Broker, Json, Url, fail, run, width
from eventkit.cli_table import printable, table
from eventkit.errors import DeclarationError, NotProvisioned
from eventkit.names import Kind, logical

_HEAD = ("published", "type", "key", "id", "body")
_PAGE = 200


def tail(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Such as orders; or inbox:shipping, dead:shipping.")],
    from_start: Annotated[bool, typer.Option("--from-start", help="From the oldest that is kept, to the end.")] = False,
    type: Annotated[Optional[str], typer.Option(help="Only of this type, such as OrderPlaced.")] = None,  # noqa: UP045
    limit: Annotated[Optional[int], typer.Option(min=1, help="At most so many.")] = None,  # noqa: UP045
    as_json: Json = False,
    broker: Broker = None,
    url: Url = None,
) -> None:
    """Show the messages that a topic holds, oldest first. No group is disturbed, and nothing is changed.

    RabbitMQ keeps messages for groups only, so its topics hold nothing that could be shown.
    """
    if not from_start:
        fail("following live is not there yet: --from-start shows what the topic holds, and ends")
    address = _address(topic)

    async def work(bus: Bus) -> None:
        await bus.adapter.provision([address], Provision.VALIDATE)
        page: list[tuple[str, ...]] = []
        count = 0
        found = bus.adapter.browse(address)
        try:
            async for delivery in found:
                if type is not None and delivery.message.type != type:
                    continue
                count += 1
                if as_json:
                    typer.echo(json.dumps(_as_json(delivery)))
                else:
                    page.append(_row(delivery))
                    if len(page) == _PAGE:
                        _print(page)
                        page = []
                if count == limit:
                    break
        except NotProvisioned as error:
            fail(str(error), 1)
        finally:
            close = getattr(found, "aclose", None)
            if close is not None:
                await close()
        _print(page)

    run(work, broker, url)


def _address(said: str) -> Address:
    kind, separator, name = said.rpartition(":")
    kind = kind if separator else "topic"
    if kind not in get_args(Kind) or kind == "reply":
        fail(f"{said}: write orders, or inbox:shipping, retry:shipping or dead:shipping")
    try:
        return Address(cast("Kind", kind), logical(name, said))
    except DeclarationError as error:
        fail(str(error))


def _print(page: list[tuple[str, ...]]) -> None:
    for line in table(_HEAD, page, width()):
        typer.echo(line)


def _row(delivery: Delivery) -> tuple[str, ...]:
    message = delivery.message
    published = message.headers.get(h.TIME, "-").partition("+")[0].partition(".")[0]
    body = "-" if message.body is None else message.body.decode(errors="backslashreplace")
    key = "-" if message.key is None else message.key
    return published, message.type or "-", key, message.headers.get(h.ID, "-"), body


def _as_json(delivery: Delivery) -> dict[str, object]:
    message = delivery.message
    return {
        "position": delivery.position,
        "type": message.type,
        "key": message.key,
        "headers": {printable(name): value for name, value in message.headers.items()},
        "body": None if message.body is None else message.body.decode(errors="backslashreplace"),
    }
