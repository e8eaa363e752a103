"""`eventkit tail`: what goes through topics, message by message, without disturbing any group."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, NamedTuple, NoReturn, Optional, cast, get_args

import typer

from eventkit import headers as h
from eventkit.adapter import Address, Delivery, Provision
from eventkit.bus import Bus
from eventkit.cli.broker import Broker, Json, Url, redaction, run, width
from eventkit.cli.ending import STOPPED, fail
from eventkit.cli.table import printable, table
from eventkit.cli.types import located
from eventkit.cli.watching import watch
from eventkit.errors import DeclarationError, NotProvisioned
from eventkit.messages import routing
from eventkit.names import Kind, logical

_HEAD = ("published", "type", "key", "id", "body")
_PAGE = 200
_FOLLOWED = ("topic", "inbox")


class _Wanted(NamedTuple):
    address: Address
    type: str | None


def tail(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="TOPIC|TYPE", help="Such as orders; OrderPlaced, as this folder declares it; or inbox:shipping."
        ),
    ],
    from_start: Annotated[
        bool, typer.Option("--from-start", help="What is kept there, from the oldest to the newest, and end.")
    ] = False,
    type: Annotated[Optional[str], typer.Option(help="Only of this type, such as OrderPlaced.")] = None,  # noqa: UP045
    key: Annotated[Optional[str], typer.Option(help="Only with this key.")] = None,  # noqa: UP045
    limit: Annotated[Optional[int], typer.Option(min=1, help="End after so many.")] = None,  # noqa: UP045
    as_json: Json = False,
    broker: Broker = None,
    url: Url = None,
) -> None:
    """Show messages as they are published, until Ctrl-C. No group is disturbed, and nothing stays on the broker.

    With --from-start what the topic holds is shown, oldest first; also of dead:shipping and retry:shipping. RabbitMQ
    keeps messages for groups only, so its topics hold nothing that could be shown. EVENTKIT_REDACT=password,card_number
    hides these fields.
    """
    wanted = [_wanted(word, type) for word in what]
    if not from_start:
        for address in {one.address for one in wanted if one.address.kind not in _FOLLOWED}:
            fail(f"{address} cannot be followed: --from-start shows what it holds, and ends")
    show = _Shown(as_json, live=not from_start)
    redactor = redaction()

    async def work(bus: Bus) -> None:
        await bus.adapter.provision([one.address for one in wanted], Provision.VALIDATE)
        count = 0
        async with AsyncExitStack() as stack:
            if from_start:
                found = _held(bus, wanted)
            else:
                found = await _live(bus, wanted, stack)
                names = " and ".join(what)
                typer.echo(f"following {names} on {bus.adapter.name}; Ctrl-C ends it", err=True)
            stack.push_async_callback(found.aclose)  # type: ignore[attr-defined]  # it is a generator
            async for one, delivery in found:
                message = delivery.message
                if one.type not in (None, message.type) or key not in (None, message.key):
                    continue
                show.add(delivery._replace(message=redactor.shown(message)))
                count += 1
                if count == limit:
                    break
        show.end()

    try:
        run(work, broker, url)
    except typer.Exit as ended:
        if ended.exit_code == STOPPED and not from_start:
            raise typer.Exit(0) from None  # to stop is how it ends
        raise


async def _held(bus: Bus, wanted: Sequence[_Wanted]) -> AsyncIterator[tuple[_Wanted, Delivery]]:
    for one in wanted:
        try:
            async for delivery in bus.adapter.browse(one.address):
                yield one, delivery
        except NotProvisioned as error:
            fail(str(error), 1)


async def _live(bus: Bus, wanted: Sequence[_Wanted], stack: AsyncExitStack) -> AsyncIterator[tuple[_Wanted, Delivery]]:
    """All of them, as they come."""
    arrived: asyncio.Queue[tuple[_Wanted, Delivery]] = asyncio.Queue(maxsize=_PAGE)

    async def take(one: _Wanted, messages: AsyncIterator[Delivery]) -> NoReturn:
        async for delivery in messages:
            await arrived.put((one, delivery))
        raise AssertionError("it never ends by itself")

    followed = [(one, await stack.enter_async_context(bus.adapter.follow(one.address))) for one in wanted]
    group = await stack.enter_async_context(asyncio.TaskGroup())
    stack.callback(group.create_task(watch(bus.adapter)).cancel)
    for one, messages in followed:
        stack.callback(group.create_task(take(one, messages)).cancel)
    return _each(arrived)


async def _each(arrived: asyncio.Queue[tuple[_Wanted, Delivery]]) -> AsyncIterator[tuple[_Wanted, Delivery]]:
    while True:
        yield await arrived.get()


class _Shown:
    """The output: JSON lines, a table, or (live) lines that do not wait for others."""

    def __init__(self, as_json: bool, live: bool) -> None:
        self._as_json = as_json
        self._live = live
        self._page: list[tuple[str, ...]] = []

    def add(self, delivery: Delivery) -> None:
        if self._as_json:
            typer.echo(json.dumps(_as_json(delivery)))
        elif self._live:
            line = "  ".join(map(printable, _row(delivery)))
            typer.echo(line if len(line) <= width() else line[: width() - 1] + "…")
        else:
            self._page.append(_row(delivery))
            if len(self._page) == _PAGE:
                self.end()

    def end(self) -> None:
        for line in table(_HEAD, self._page, width()):
            typer.echo(line)
        self._page = []


def _wanted(said: str, type_: str | None) -> _Wanted:
    cls = located(said)
    if cls is not None:
        return _Wanted(routing(cls).address, type_ or routing(cls).type)
    kind, separator, name = said.rpartition(":")
    kind = kind if separator else "topic"
    if kind not in get_args(Kind) or kind == "reply":
        fail(f"{said}: write orders, or inbox:shipping, retry:shipping or dead:shipping")
    try:
        return _Wanted(Address(cast("Kind", kind), logical(name, said)), type_)
    except DeclarationError as error:
        fail(str(error))


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
