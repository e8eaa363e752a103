"""`eventkit dead-letters list | show | retry | discard`: what groups have given up on, while services run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Optional

import typer

from eventkit.bus import Bus
from eventkit.cli import letters as shown
from eventkit.cli.broker import Broker, Groups, GroupsToSee, Json, Url, all_groups, groups, redaction, run, width
from eventkit.cli.ending import FAILED, fail
from eventkit.cli.table import printable
from eventkit.dead_letters import DeadLetters
from eventkit.errors import DeadLetterError, LetterFailure, NoDeadLetter
from eventkit.letter import DeadLetter
from eventkit.redacting import Redactor

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="What groups have given up on: look at it, have it tried again, or discard it, while services run.",
)

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}
_PAGE = 200
_UNCHOSEN = "say which: ids, --type, --reason, --since, or --all"

Ids = Annotated[Optional[list[str]], typer.Argument(metavar="ID", help="As `list` shows them.")]  # noqa: UP045
Type = Annotated[Optional[str], typer.Option(help="Only of this type, such as OrderPlaced.")]  # noqa: UP045
Reason = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Only these: exhausted, gave-up, undecodable, unhandled, unsendable or quarantined."),
]
Since = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="2h|TIME", help="Only with a failure since: 90s, 30m, 2h, 7d ago, or an ISO time (local)."),
]
All = Annotated[bool, typer.Option("--all", help="All that there are.")]


@app.command("list")
def list_(
    group: GroupsToSee = None,
    type: Type = None,
    reason: Reason = None,
    since: Since = None,
    limit: Annotated[Optional[int], typer.Option(min=1, help="At most so many of a group.")] = None,  # noqa: UP045
    as_json: Json = False,
    broker: Broker = None,
    url: Url = None,
) -> None:
    """List dead letters, oldest first. Changes nothing, however often."""
    names, after, redactor = groups(group, all_else=True), _since(since), redaction()
    which = {"type": type, "reason": reason, "since": after}

    async def work(bus: Bus) -> None:
        for name in await all_groups(bus, names):
            await _list(bus.dead_letters(name), which, limit, redactor, as_json)

    run(work, broker, url)


@app.command()
def show(
    id: Annotated[str, typer.Argument(metavar="ID")],
    group: GroupsToSee = None,
    as_json: Json = False,
    broker: Broker = None,
    url: Url = None,
) -> None:
    """Show one dead letter: why, where, when, the stack, headers and body; EVENTKIT_REDACT=card_number hides fields."""
    said, redactor = groups(group, all_else=True), redaction()

    async def work(bus: Bus) -> None:
        names = await all_groups(bus, said)
        found = [letter for name in names async for letter in bus.dead_letters(name).list(id)]
        if not found:
            raise NoDeadLetter(f"{' and '.join(names)}: no dead letter {id!r}; it was retried, discarded or never one")
        for letter in map(redactor.letter, found):
            typer.echo(json.dumps(shown.as_json(letter, whole=True)) if as_json else shown.as_text(letter))

    run(work, broker, url)


@app.command()
def retry(  # noqa: PLR0913 each is an option of the command line
    ids: Ids = None,
    all: All = False,
    group: Groups = None,
    type: Type = None,
    reason: Reason = None,
    since: Since = None,
    force: Annotated[bool, typer.Option("--force", help="Also those that came back several times.")] = False,
    as_json: Json = False,
    broker: Broker = None,
    url: Url = None,
) -> None:
    """Have the group that failed try them again, from attempt 1; no other group gets them.

    A letter is removed when its copy is confirmed. If this is killed in between, it is still listed although it is
    tried again: nothing is lost, and retrying it once more makes the group handle it twice.
    """
    names = groups(group)
    which = _which(ids, all, type, reason, since)

    async def again(letters: DeadLetters, wanted: Sequence[str]) -> int:
        return await letters.retry(*wanted, **which, force=force)

    run(lambda bus: _each(bus, list(names), ids or [], again, "retried", as_json), broker, url)


@app.command()
def discard(  # noqa: PLR0913 the same
    ids: Ids = None,
    all: All = False,
    group: Groups = None,
    type: Type = None,
    reason: Reason = None,
    since: Since = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
    broker: Broker = None,
    url: Url = None,
) -> None:
    """Delete them for good. Asks first, unless --yes."""
    names = groups(group)
    which = _which(ids, all, type, reason, since)
    if not yes and not sys.stdin.isatty():
        fail("discarding is for good, and there is nobody to ask: say --yes")

    async def delete(letters: DeadLetters, wanted: Sequence[str]) -> int:
        if not yes:
            narrowed = {name: value for name, value in which.items() if name != "all"}
            count = sum([1 async for _ in letters.list(*wanted, **narrowed)])
            if count and not typer.confirm(f"discard {count} dead letters of {letters.group} for good?", err=True):
                return 0
        return await letters.discard(*wanted, **which)

    run(lambda bus: _each(bus, list(names), ids or [], delete, "discarded", as_json), broker, url)


async def _list(
    letters: DeadLetters, which: dict[str, Any], limit: int | None, redactor: Redactor, as_json: bool
) -> None:
    page: list[DeadLetter] = []
    count = 0
    found = letters.list(**which)
    try:
        async for letter in found:
            count += 1
            if as_json:
                typer.echo(json.dumps(shown.as_json(redactor.letter(letter))))
            else:
                page.append(redactor.letter(letter))
                if len(page) == _PAGE:
                    _print(page)
                    page = []
            if count == limit:
                break
    finally:
        await found.aclose()
    _print(page)
    if not as_json:
        said = f"{count} dead letter{'' if count == 1 else 's'} of {letters.group}"
        typer.echo(said + (f" (the first {limit})" if count == limit else ""), err=True)


def _print(page: Sequence[DeadLetter]) -> None:
    for line in shown.as_table(page, width()):
        typer.echo(line)


async def _each(
    bus: Bus,
    names: Sequence[str],
    ids: Sequence[str],
    do: Callable[[DeadLetters, Sequence[str]], Awaitable[int]],
    verb: str,
    as_json: bool,
) -> None:
    """Group by group. An id that one group does not have is no failure where another has it."""
    failures: list[tuple[str, LetterFailure]] = []
    missing: dict[str, int] = {}
    for name in names:
        failed: Sequence[LetterFailure] = ()
        try:
            done = await do(bus.dead_letters(name), ids)
        except DeadLetterError as error:
            if not error.failures:
                raise
            done, failed = error.done, error.failures
        others = [failure for failure in failed if not isinstance(failure.error, NoDeadLetter)]
        failures += [(name, failure) for failure in others]
        for failure in failed:
            if isinstance(failure.error, NoDeadLetter):
                missing[failure.id] = missing.get(failure.id, 0) + 1
                if missing[failure.id] == len(names):
                    failures.append((name, failure))
        if as_json:
            left = [{"id": failure.id, "error": _one_line(failure.error)} for failure in failed]
            typer.echo(json.dumps({"group": name, verb: done, "failures": left}))
        elif done or not ids:
            typer.echo(f"{name}: {done} dead letter{'' if done == 1 else 's'} {verb}")
    for name, failure in failures:
        typer.echo(f"eventkit: {name}: {printable(failure.id)} is left: {_one_line(failure.error)}", err=True)
    if failures:
        raise typer.Exit(FAILED)


def _which(
    ids: Sequence[str] | None, all: bool, type: str | None, reason: str | None, since: str | None
) -> dict[str, Any]:
    which = {"type": type, "reason": reason, "since": _since(since), "all": all}
    if not ids and not any(which.values()):
        fail(_UNCHOSEN)
    return which


def _since(said: str | None) -> datetime | timedelta | None:
    if said is None:
        return None
    if found := _AGO.fullmatch(said.strip().lower()):
        return timedelta(seconds=float(found[1]) * _SECONDS[found[2]])
    try:
        return datetime.fromisoformat(said).astimezone()
    except ValueError:
        fail(f"--since {said}: say how long ago (90s, 30m, 2h, 7d) or a time (2026-01-31T09:00)")


def _one_line(error: Exception) -> str:
    return printable(str(error) or type(error).__name__)
