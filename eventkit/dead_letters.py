"""Dead letters: what a group has given up on, to list, show, retry and discard, on every broker, while services run.

```python
letters = bus.dead_letters("shipping")
async for letter in letters.list(type=OrderPlaced, since=timedelta(hours=2)):
    print(letter.id, letter.reason, letter.error_message)
await letters.retry(letter.id)
await letters.discard(reason="undecodable")
```

A retry goes to the group that failed and to no other, as attempt 1. The copy is confirmed by the broker before the
letter is removed: whoever is interrupted in between loses nothing, but the letter is still there, and retrying it again
makes the group handle it twice. Listing changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from eventkit import copies
from eventkit import headers as h
from eventkit.adapter import Adapter, Address, Delivery, Group, Message, Provision
from eventkit.clock import Clock
from eventkit.copies import Reason
from eventkit.errors import (
    DeadLetterError,
    DeclarationError,
    EventkitError,
    LetterFailure,
    NoDeadLetter,
    NotProvisioned,
    RetriedTooOften,
)
from eventkit.letter import DeadLetter, MessageClass, Wanted, read, wanted
from eventkit.wire import Serializer

REDRIVES = 3
"""How often a letter is retried without `force`: one that has come back that often is ill, not unlucky."""
_LETTERS = 100
"""Letters that are copied, confirmed and removed together,"""
_BYTES = 4_000_000
"""unless their bodies are larger than this in all."""
_REMOVAL = 20.0
"""Seconds that the broker has to remove them."""


@dataclass(slots=True)
class _Work:
    """What has become of the letters that one call was asked to deal with."""

    done: int = 0
    failures: list[LetterFailure] = field(default_factory=list)

    def failed(self, letter: DeadLetter, error: Exception) -> None:
        self.failures.append(LetterFailure(letter.id, error))


class DeadLetters:
    """The dead letters of one group. Made by `Bus.dead_letters`; usable while that bus is open.

    `ids`, `type`, `reason` and `since` narrow down which are meant; all that is given must hold. `type` is a class or
    its wire name; `reason` one of `Reason`; `since` a time, or how long ago: letters whose last failure is not older.
    """

    def __init__(
        self,
        adapter: Adapter,
        publish: Callable[[Sequence[Message]], Awaitable[Sequence[Exception | None]]],
        clock: Clock,
        serializer: Serializer,
        group: str,
    ) -> None:
        self._adapter = adapter
        self._publish = publish
        self._clock = clock
        self._serializer = serializer
        self._group = Group(group, ())

    @property
    def group(self) -> str:
        """Whose dead letters these are."""
        return self._group.name

    async def list(
        self,
        *ids: str,
        type: MessageClass | str | None = None,
        reason: Reason | str | None = None,
        since: datetime | timedelta | None = None,
    ) -> AsyncGenerator[DeadLetter, None]:
        """The letters that are there now, oldest first, one by one as the broker gives them. Changes nothing.

        Raises NotProvisioned where the group has no dead letters on this broker because it was never there.
        """
        which = wanted(ids, type, reason, since, self._clock.now())
        async with self._browse() as found:
            async for delivery in found:
                letter = read(delivery, self._serializer)
                if which.takes(letter):
                    yield letter

    async def show(self, id: str) -> DeadLetter:
        """The letter of this id; of several copies the latest. NoDeadLetter where there is none."""
        latest = None
        async for letter in self.list(id):
            latest = letter
        if latest is None:
            raise self._none(id)
        return latest

    async def retry(
        self,
        *ids: str,
        type: MessageClass | str | None = None,
        reason: Reason | str | None = None,
        since: datetime | timedelta | None = None,
        all: bool = False,
        force: bool = False,
    ) -> int:
        """Have the group try these letters again, from attempt 1; returns how many.

        Without any id or filter say `all=True`. A letter that has come back three times needs `force=True`. What can
        be retried is; then DeadLetterError says in `failures` which could not, and why: those are still there.
        """
        which = self._all(ids, type, reason, since, all)

        async def again(batch: Sequence[DeadLetter], work: _Work) -> None:
            await self._again(batch, work, force)

        return await self._each(which, again, once=True)

    async def discard(
        self,
        *ids: str,
        type: MessageClass | str | None = None,
        reason: Reason | str | None = None,
        since: datetime | timedelta | None = None,
        all: bool = False,
    ) -> int:
        """Delete these letters for good; returns how many. Selection and errors are as those of `retry`."""
        return await self._each(self._all(ids, type, reason, since, all), self._remove)

    async def _each(
        self, which: Wanted, do: Callable[[Sequence[DeadLetter], _Work], Awaitable[None]], *, once: bool = False
    ) -> int:
        """Deal with what is chosen, some at a time. `once`: what fails again meanwhile, and comes back here, is left
        alone."""
        work = _Work()
        batch: list[DeadLetter] = []
        size = 0
        seen: set[tuple[object, ...]] = set()
        try:
            async with self._browse() as found:
                async for delivery in found:
                    letter = read(delivery, self._serializer)
                    # an id is its source's own
                    which_one = (letter.id, letter.message.headers.get(h.SOURCE), letter.type, letter.origin)
                    if not which.takes(letter) or (once and (*which_one, letter.redriven - 1) in seen):
                        continue
                    seen.add((*which_one, letter.redriven))
                    batch.append(letter)
                    size += len(letter.body or b"")
                    if len(batch) >= _LETTERS or size > _BYTES:
                        await do(batch, work)
                        batch, size = [], 0
                if batch:
                    await do(batch, work)
        except DeadLetterError as error:
            error.done, error.failures = work.done, tuple(work.failures)
            raise
        missing = which.ids - {id_ for id_, *_ in seen}
        work.failures += [LetterFailure(id_, self._none(id_)) for id_ in sorted(missing)]
        if work.failures:
            first = work.failures[0]
            raise DeadLetterError(
                f"{len(work.failures)} of {work.done + len(work.failures)} dead letters of {self.group} are left as "
                f"they were; the first, {first.id}: {first.error}",
                done=work.done,
                failures=work.failures,
            ) from first.error
        return work.done

    async def _again(self, letters: Sequence[DeadLetter], work: _Work, force: bool) -> None:
        ready: list[DeadLetter] = []
        for letter in letters:
            refused = self._refused(letter, force)
            if refused is None:
                ready.append(letter)
            else:
                work.failed(letter, refused)
        copied = [copies.redrive(letter.message, self._group) for letter in ready]
        confirmed: list[DeadLetter] = []
        for letter, error in zip(ready, await self._publish(copied), strict=True):
            if error is None:
                confirmed.append(letter)
            else:
                work.failed(letter, error)
        await self._remove(confirmed, work, "it is tried again, but is still here as well: discard it")

    def _refused(self, letter: DeadLetter, force: bool) -> Exception | None:
        if h.ORIGIN not in letter.message.headers:
            return DeadLetterError(
                f"{letter.id} does not say where it was first published ({h.ORIGIN}): the broker itself, or another "
                "program, has put it here; publish it anew and discard it"
            )
        if letter.redriven >= REDRIVES and not force:
            return RetriedTooOften(
                f"{letter.type} {letter.id} was retried {letter.redriven} times and has come back each time: find out "
                f"why ({letter.error_type or letter.reason}), then retry it with force, or discard it"
            )
        return None

    async def _remove(self, letters: Sequence[DeadLetter], work: _Work, otherwise: str = "") -> None:
        if not letters:
            return
        answers: Sequence[Exception | None]
        try:
            async with asyncio.timeout(_REMOVAL):
                answers = await self._adapter.remove([letter.delivery for letter in letters])
        except Exception as error:  # noqa: BLE001 an answer for each is owed, whatever the client raised
            answers = [error] * len(letters)
        for letter, answer in zip(letters, answers, strict=True):
            if answer is None:
                work.done += 1
            else:
                said = f"cannot be removed ({answer or type(answer).__name__}); {otherwise}".rstrip("; ")
                work.failed(letter, DeadLetterError(said))

    @asynccontextmanager
    async def _browse(self) -> AsyncIterator[AsyncIterator[Delivery]]:
        """What is there now; its end is waited for: some brokers show to one at a time."""
        address = Address("dead", self.group)
        try:
            await self._adapter.provision([address], Provision.VALIDATE)
            found = self._adapter.browse(address)
            try:
                yield found
            finally:
                close = getattr(found, "aclose", None)
                if close is not None:
                    await close()
        except NotProvisioned as error:
            raise NotProvisioned(
                f"{self.group!r} has no dead letters on this {self._adapter.name}: its service has never run here, or "
                f"the group's name or EVENTKIT_NAMESPACE is another ({error})"
            ) from error
        except EventkitError:
            raise
        except Exception as error:
            raise DeadLetterError(
                f"the dead letters of {self.group} cannot be read from {self._adapter.name} "
                f"({type(error).__name__}: {error}); try again"
            ) from error

    def _all(
        self,
        ids: Sequence[str],
        type: MessageClass | str | None,
        reason: Reason | str | None,
        since: datetime | timedelta | None,
        all: bool,
    ) -> Wanted:
        """What a call that changes something means: never all by an oversight."""
        narrowed = bool(ids) or type is not None or reason is not None or since is not None
        if narrowed == all:
            said = "all=True goes with no id and no filter" if all else "give ids, a filter, or all=True"
            raise DeclarationError(f"say which dead letters of {self.group}: {said}")
        return wanted(ids, type, reason, since, self._clock.now())

    def _none(self, id: str) -> NoDeadLetter:
        return NoDeadLetter(f"{self.group} has no dead letter {id!r}: it was retried or discarded, or never was one")
