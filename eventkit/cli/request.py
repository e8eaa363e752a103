"""`eventkit request`: commands from the prompt, and their replies."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Annotated, Any

import typer

from eventkit.bus import Bus
from eventkit.cli import asked, types
from eventkit.cli.broker import Broker, Url, describe, run
from eventkit.cli.ending import FAILED, fail
from eventkit.cli.payload import Unfit
from eventkit.cli.sending import complain
from eventkit.cli.table import printable
from eventkit.errors import CommandFailed, CommandRejected, EventkitError, NoOwner, RequestTimeout
from eventkit.messages import Command, routing
from eventkit.replies import reply_adapter

REJECTED, BROKEN, TIMED_OUT = 4, 5, 6
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029]")

Timeout = Annotated[str, typer.Option(metavar="500ms|30s|5m", help="How long each reply is waited for.")]


def request(  # noqa: PLR0913 each is an option of the command line
    type: types.CommandType = None,
    text: asked.Text = None,
    from_: types.From = None,
    timeout: Timeout = "30s",
    key: asked.Key = None,
    header: asked.Headers = None,
    correlation_id: asked.Correlation = None,
    count: asked.Count = 1,
    rate: asked.Rate = None,
    broker: Broker = None,
    url: Url = None,
) -> None:
    """Send a command and print its reply as JSON, in one line; null where it has none.

    Several, by --count or as lines of standard input, are asked one after the other. Exit code 1: not sent, or no reply
    that fits; 2: wrongly asked; 3: no service has an inbox for it on this broker; 4: rejected; 5: its handler failed
    for good; 6: no reply in time, which is no proof that it did not happen. Of several, that of the first that failed.
    """
    given = asked.take("request", type, text, from_, key, header, correlation_id, count, rate)
    limit = asked.lasting(timeout, "--timeout")
    if not limit:
        fail(f"--timeout {timeout}: it is longer than nothing")

    async def work(bus: Bus) -> int:
        first = 0
        async for batch in given.batches():
            for said in batch:
                try:
                    command = given.message(said)
                except Unfit as error:
                    for line in error.lines:
                        complain(line, said.line)
                    first = first or FAILED
                    continue
                assert isinstance(command, Command)
                code = await _ask(bus, command, limit, given.about, said.line)
                first = first or code
                if code == asked.NO_OWNER:
                    return first
        return first

    if code := run(work, broker, url, alone=asked.ALONE, source=None, provision=None):
        raise typer.Exit(code)


async def _ask(bus: Bus, command: Command[Any], limit: timedelta, about: dict[str, Any], line: int | None) -> int:
    name, route = command.__class__.__name__, routing(command.__class__)
    try:
        reply = await bus.request(command, timeout=limit, **about)
    except CommandRejected as error:
        complain(f"{name} was rejected by {route.service}: {printable(error.reason)}", line)
        return REJECTED
    except CommandFailed as error:
        complain(f"{name} failed in {route.service}: {printable(str(error))}", line)
        return BROKEN
    except RequestTimeout as error:
        complain(printable(str(error)), line)
        return TIMED_OUT
    except NoOwner as error:
        complain(describe(error), line)
        return asked.NO_OWNER
    except EventkitError as error:
        complain(describe(error), line)
        return FAILED
    written = reply_adapter(route.reply).dump_json(reply, by_alias=True).decode()
    # a terminal would act on what JSON lets stand
    typer.echo(_UNPRINTABLE.sub(lambda found: json.dumps(found[0])[1:-1], written))
    return 0
