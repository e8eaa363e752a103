"""Messages on their way: batches, several under way at once, each answered, and counted on a terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from eventkit import headers as h
from eventkit.adapter import Message
from eventkit.bus import Bus
from eventkit.cli.broker import describe
from eventkit.errors import InvalidMessage, NoOwner, PublishError
from eventkit.publishing import permanent

_UNDER_WAY = 4


class Item(NamedTuple):
    """A message that is ready to go."""

    line: int | None
    message: Message


class Sending:
    """Hands batches to the broker, in order. Each refusal is said in one line, by its number."""

    def __init__(self, bus: Bus, what: str, sent: Callable[[Message], None]) -> None:
        self._bus = bus
        self._what = what
        self._told = sent
        self._pending: set[asyncio.Task[None]] = set()
        self._first = True
        self.sent = 0
        self.failed = 0
        self.stopped: Exception | None = None
        """Why it is of no use to go on: the broker refused a whole batch, none of it for its own sake."""

    async def hand_over(self, items: Sequence[Item]) -> None:
        """Waits only while enough is under way; the first batch, for which topics are made, goes alone."""
        if not items:
            return
        task = asyncio.ensure_future(self._send(items))
        self._pending.add(task)
        if self._first:
            self._first = False
            await task
        elif len(self._pending) >= _UNDER_WAY:
            await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(0)
        self._pending = {other for other in self._pending if not other.done()}

    async def end(self) -> None:
        """When each is answered."""
        if self._pending:
            await asyncio.gather(*self._pending)

    async def _send(self, items: Sequence[Item]) -> None:
        errors: dict[int, Exception] = {}
        try:
            await self._bus.deliver([item.message for item in items])
        except PublishError as error:
            errors = {failure.index: failure.error for failure in error.failures}
        for place, item in enumerate(items):
            if place not in errors:
                self.sent += 1
                self._told(item.message)
        self.failed += len(errors)
        if len(errors) == len(items) and not any(isinstance(error, InvalidMessage) for error in errors.values()):
            self.stopped = self.stopped or errors[0]
        self._tell([(items[place], error) for place, error in errors.items()])

    def _tell(self, failures: Sequence[tuple[Item, Exception]]) -> None:
        """Neighbours that failed for the same reason are said together."""
        start = 0
        for end in range(1, len(failures) + 1):
            if end < len(failures) and str(failures[end][1]) == str(failures[start][1]):
                continue
            first, last, error = failures[start][0], failures[end - 1][0], failures[start][1]
            start = end
            said = self._why(error, first.message if first == last else None)
            complain(said, first.line, last.line)

    def _why(self, error: Exception, message: Message | None) -> str:
        """`message`: where it is a single one."""
        if isinstance(error, NoOwner):
            return describe(error)
        if permanent(error):
            return f"{self._what} was refused by {self._bus.broker}: {describe(error)}"
        again = "" if message is None else f"; send it again with --id {message.headers[h.ID]}"
        return (
            f"{self._what} was not confirmed by {self._bus.broker} ({describe(error)}): "
            f"it may or may not have it{again}"
        )


def complain(said: str, line: int | None = None, last: int | None = None) -> None:
    """One line on standard error."""
    where = "" if line is None else f"line {line}: " if last in (None, line) else f"lines {line} to {last}: "
    typer.echo(f"eventkit: {where}{said}", err=True)


class Bar:
    """A progress bar on a terminal's standard error; elsewhere nothing."""

    def __init__(self, said: str, total: int | None, *, shown: bool) -> None:
        console = Console(stderr=True)
        self._shown = shown and sys.stderr.isatty()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn() if total is not None else TextColumn(""),
            TextColumn("{task.fields[sent]:,} sent, {task.fields[rate]:,.0f}/s"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,
            disable=not self._shown,
        )
        self._task = self._progress.add_task(said, total=total, sent=0, rate=0.0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, done: int, sent: int) -> None:
        """`done`: in the unit of the total."""
        if self._shown:
            fields: dict[str, Any] = {"sent": sent, "rate": sent / max(self._elapsed(), 0.001)}
            self._progress.update(self._task, completed=done, **fields)

    def _elapsed(self) -> float:
        return self._progress.tasks[0].elapsed or 0.0
