"""What `publish`, `send` and `request` are asked: their options, checked as far as no broker is needed."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from eventkit import headers as h
from eventkit.cli import lines, types
from eventkit.cli.ending import fail
from eventkit.cli.payload import Unfit, check_key, read
from eventkit.cli.sending import complain
from eventkit.errors import InvalidMessage
from eventkit.messages import Command, Event

NO_OWNER = 3
ALONE = (
    "the memory broker lives inside one process, so what is sent from here would reach nobody: "
    "set EVENTKIT_BROKER and EVENTKIT_URL to a broker that the services share, or say --broker and --url"
)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)?")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3_600}

Text = Annotated[
    Optional[str],  # noqa: UP045
    typer.Argument(
        metavar="JSON", help="In single quotes. Left out, or -: JSON lines from standard input, a message each."
    ),
]
Key = Annotated[Optional[str], typer.Option(help="The value of the field that is the class's key=.")]  # noqa: UP045
Headers = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--header", "-H", metavar="NAME=VALUE", help="A header of your own. May be repeated."),
]
Id = Annotated[Optional[str], typer.Option("--id", help="Of one message; by default a new one.")]  # noqa: UP045
Delay = Annotated[Optional[str], typer.Option(metavar="90s|5m|2h", help="Handled that much later.")]  # noqa: UP045
Correlation = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--correlation-id", help="What this belongs to; by default each message begins a chain of its own."),
]
Count = Annotated[int, typer.Option(min=1, help="The same JSON so many times, each with an id of its own.")]
Rate = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="At most so many a second. Default: as fast as the broker takes them."),
]
Ids = Annotated[bool, typer.Option("--json", help="One JSON object for each message that was sent, with its id.")]


class Teaching(TyperCommand):
    """A command whose help lists the types that this folder declares."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        kind = "event" if self.name == "publish" else "command"
        names = sorted({one.type for one in types.known() if one.kind == kind})
        if names:
            self.epilog = f"{self.epilog or ''}\n\n{kind.capitalize()}s of this folder: {', '.join(names)}"
        super().format_help(ctx, formatter)


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says of the messages, checked."""

    cls: types.MessageClass
    fixed: Event | Command[Any] | None
    """The message of the command line. None: standard input has them."""
    count: int
    rate: float | None
    key: str | None
    about: dict[str, Any]
    """Headers and correlation id, as the bus takes them."""
    input: lines.StandardInput | None

    @property
    def alone(self) -> bool:
        """Is it one message?"""
        return self.fixed is not None and self.count == 1

    def batches(self) -> AsyncIterator[Sequence[lines.Said]]:
        source = lines.many("", self.count) if self.input is None else self.input.lines()
        return lines.paced(source, self.rate)

    def message(self, said: lines.Said) -> Event | Command[Any]:
        """Raises Unfit."""
        return self.fixed if self.fixed is not None else read(self.cls, said.text, self.key)


def take(
    verb: types.Verb,
    type: str | None,
    text: str | None,
    from_: Sequence[str] | None,
    key: str | None,
    header: Sequence[str] | None,
    correlation_id: str | None,
    count: int,
    rate: float | None,
) -> Given:
    """Check all that can be checked without a broker; ends the command where it is wrong."""
    cls = types.find(verb, type, from_ or [])
    if rate is not None and not 0 < rate < float("inf"):
        fail(f"--rate {rate:g}: it is more than 0 a second")
    headers = _headers(header or [])
    about = {"headers": headers, "correlation_id": correlation_id}
    try:
        h.check(headers)
        h.check_id("--correlation-id", correlation_id)
        check_key(cls, key)
        if text is not None and text != "-":
            return Given(cls, read(cls, text, key), count, rate, key, about, None)
    except InvalidMessage as error:
        fail(str(error))
    except Unfit as error:
        for line in error.lines[:-1]:
            complain(line)
        fail(error.lines[-1])
    if count > 1:
        fail("--count repeats the JSON of the command line; of standard input each line is sent once")
    if text is None and sys.stdin.isatty():
        said = type or cls.__name__
        fields = ", ".join(cls.model_fields) or "none"
        fail(f"say its JSON, as in: eventkit {verb} {said} '{{...}}'; its fields: {fields}")
    return Given(cls, None, 1, rate, key, about, lines.StandardInput())


def lasting(said: str, option: str) -> timedelta:
    """A time as people write it: 90, 90s, 5m, 2h."""
    found = _TIME.fullmatch(said.strip().lower())
    if found is None:
        fail(f"{option} {said}: say how long: 500ms, 90s, 5m or 2h")
    return timedelta(seconds=float(found[1]) * _SECONDS[found[2] or "s"])


def _headers(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for said in given:
        name, separator, value = said.partition("=")
        if not separator or not name:
            fail(f"--header {said}: write it as name=value")
        found[name] = value
    return found
