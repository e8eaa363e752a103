"""`eventkit publish` and `eventkit send`: messages from the prompt, checked against their classes."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import typer

from eventkit import headers as h
from eventkit.adapter import Message
from eventkit.bus import Bus
from eventkit.cli import asked, types
from eventkit.cli.asked import Given
from eventkit.cli.broker import Broker, Url, describe, run
from eventkit.cli.ending import FAILED, fail
from eventkit.cli.payload import Unfit
from eventkit.cli.sending import Bar, Item, Sending, complain
from eventkit.clock import check_delay
from eventkit.errors import EventkitError, InvalidMessage, NoOwner
from eventkit.messages import routing


def publish(  # noqa: PLR0913 each is an option of the command line
    type: types.EventType = None,
    text: asked.Text = None,
    from_: types.From = None,
    key: asked.Key = None,
    header: asked.Headers = None,
    delay: asked.Delay = None,
    correlation_id: asked.Correlation = None,
    id: asked.Id = None,
    count: asked.Count = 1,
    rate: asked.Rate = None,
    as_json: asked.Ids = False,
    broker: Broker = None,
    url: Url = None,
) -> None:
    """Publish an event, or one for each line of standard input. Ends when the broker has them all.

    The class says the topic, and which JSON fits; unknown fields are refused. A line that does not fit is named by its
    number, and the others are sent. Exit code 1: something was not sent; 2: wrongly asked, and nothing was sent.
    """
    given = asked.take("publish", type, text, from_, key, header, correlation_id, count, rate)
    _put("published", given, id, delay, as_json, broker, url)


def send(  # noqa: PLR0913 the same
    type: types.CommandType = None,
    text: asked.Text = None,
    from_: types.From = None,
    key: asked.Key = None,
    header: asked.Headers = None,
    delay: asked.Delay = None,
    correlation_id: asked.Correlation = None,
    id: asked.Id = None,
    count: asked.Count = 1,
    rate: asked.Rate = None,
    as_json: asked.Ids = False,
    broker: Broker = None,
    url: Url = None,
) -> None:
    """Send a command to the service that owns it, or one for each line of standard input. Waits for no reply.

    Exit code 1: something was not sent; 2: wrongly asked, and nothing was sent; 3: no service has an inbox for it on
    this broker.
    """
    given = asked.take("send", type, text, from_, key, header, correlation_id, count, rate)
    _put("sent", given, id, delay, as_json, broker, url)


def _put(
    done: str, given: Given, id: str | None, delay: str | None, as_json: bool, broker: str | None, url: str | None
) -> None:
    if id is not None and not given.alone:
        fail("--id is of one message: give its JSON, without --count")
    about = {**given.about, "delay": None if delay is None else asked.lasting(delay, "--delay")}
    try:
        check_delay(about["delay"])
        h.check_id("--id", id)
    except EventkitError as error:
        fail(str(error))

    def told(message: Message) -> None:
        if as_json:
            typer.echo(json.dumps(_as_json(message)))
        elif given.alone:
            typer.echo(f"{done} {_where(given.cls)} {bus_name[0]}: {message.type} {message.headers[h.ID]}")

    bus_name: list[str] = []

    async def work(bus: Bus) -> int:
        bus_name.append(f"on {bus.broker}")
        began = time.monotonic()
        sending = Sending(bus, given.cls.__name__, told)
        try:
            unfit = await _through(bus, given, sending, id, about, shown=not (as_json and sys.stdout.isatty()))
        except asyncio.CancelledError:
            complain(f"ended early: {sending.sent:,} were {done}, and what was under way may have been")
            raise
        if not as_json and not given.alone:
            took = time.monotonic() - began
            typer.echo(
                f"{done} {_where(given.cls)} {bus_name[0]}: {sending.sent:,} {given.cls.__name__}, in {took:.1f} s"
            )
        if isinstance(sending.stopped, NoOwner):
            return asked.NO_OWNER
        return FAILED if unfit or sending.failed else 0

    if code := run(work, broker, url, alone=asked.ALONE, source=None, provision=None):
        raise typer.Exit(code)


async def _through(
    bus: Bus, given: Given, sending: Sending, id: str | None, about: dict[str, Any], *, shown: bool
) -> int:
    """All of it, to its end; how many could not even be written."""
    unfit, seen = 0, 0
    total = given.count if given.input is None else given.input.size
    with Bar(given.cls.__name__, total, shown=shown and not given.alone) as bar:
        async for batch in given.batches():
            items = []
            for said in batch:
                try:
                    items.append(Item(said.line, bus.encode(given.message(said), id=id, **about)))
                except Unfit as error:
                    unfit += 1
                    for line in error.lines:
                        complain(line, said.line)
                except InvalidMessage as error:
                    unfit += 1
                    complain(describe(error), said.line)
            await sending.hand_over(items)
            seen += len(batch)
            bar.show(seen if given.input is None else given.input.read, sending.sent)
            if sending.stopped is not None:
                if not given.alone:
                    complain("stopped: what follows was not sent", None)
                break
        await sending.end()
    return unfit


def _where(cls: types.MessageClass) -> str:
    route = routing(cls)
    return f"to topic {route.topic.name}" if route.topic else f"to the inbox of {route.service}"


def _as_json(message: Message) -> dict[str, object]:
    headers = message.headers
    said = {"id": headers[h.ID], "type": message.type, "key": message.key, "correlation_id": headers[h.CORRELATION]}
    return {**said, "channel": str(message.address)}
