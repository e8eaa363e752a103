"""Publishing: concurrent publishes gathered into batches, topics made when first needed, answers made errors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from eventkit.adapter import Adapter, Address, Message, Provision
from eventkit.cancelling import unbroken
from eventkit.errors import Closed, InvalidMessage, NoOwner, NotProvisioned

_BATCH = 1_000
"""Messages handed to the adapter at once."""
_BATCHES = 4
"""Batches under way at once; what comes meanwhile is gathered into the next."""
_DEADLINE = 15.0
"""Seconds until a batch without answers counts as unknown; adapters answer earlier by themselves."""

_MADE = ("topic", "inbox")
"""What is looked for, or made, before the first message to it. All else belongs to a group or to a requester."""
_PERMANENT = (InvalidMessage, NoOwner, NotProvisioned)


def permanent(error: Exception) -> bool:
    """Was the message refused for good, so that nothing of it was sent and sending it again is of no use?"""
    return isinstance(error, _PERMANENT)


class Publisher:
    """Hands messages to the adapter. Every message gets an answer: None is confirmed, else why not."""

    def __init__(self, adapter: Adapter, provision: Provision) -> None:
        self._adapter = adapter
        self._provision = provision
        self._known: set[Address] = set()
        self._ensuring: dict[Address, asyncio.Future[Exception | None]] = {}
        self._waiting: list[tuple[Message, asyncio.Future[Exception | None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.get_running_loop()
        """The only one from which anything may be published."""
        self._alone: asyncio.Future[None] | None = None
        """Under way: one that was published while nothing else was, which no turn of the loop is waited for."""
        self._scheduled = False
        self._closed = False

    @property
    def busy(self) -> bool:
        """Is anything not yet answered?"""
        return bool(self._waiting or self._tasks or self._ensuring or self._alone)

    async def publish(self, message: Message) -> Exception | None:
        """One message; those published at the same time go out with it."""
        if self._closed:
            return Closed("this bus is closed")
        if message.address not in self._known:
            refused = await self._ensure(message.address)
            if refused is not None:
                return refused
            if self._closed:
                return Closed("this bus is closed")
        if self._alone is None and not self._waiting and not self._tasks:
            self._alone = self.loop.create_future()
            try:
                return (await self._hand_over((message,)))[0]
            finally:
                self._alone.set_result(None)
                self._alone = None
        answer: asyncio.Future[Exception | None] = self.loop.create_future()
        self._waiting.append((message, answer))
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._flush)
        return await answer

    async def publish_batch(self, messages: Sequence[Message]) -> Sequence[Exception | None]:
        """Many messages, as they are; one answer each, in order."""
        if self._closed:
            return [Closed("this bus is closed")] * len(messages)
        refused = await self.ensure(messages)
        if not refused:
            return await self._hand_over(messages)
        answers: list[Exception | None] = [refused.get(message.address) for message in messages]
        places = [place for place, answer in enumerate(answers) if answer is None]
        found = await self._hand_over([messages[place] for place in places])
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer
        return answers

    async def ensure(self, messages: Sequence[Message]) -> Mapping[Address, Exception]:
        """Make or find where these go; the addresses that cannot be had, and why.

        Batches that follow one another keep their order only if no later one overtakes an earlier one here: whoever
        has several under way calls this before each.
        """
        refused: dict[Address, Exception] = {}
        for address in {message.address for message in messages} - self._known:
            error = await self._ensure(address)
            if error is not None:
                refused[address] = error
        return refused

    async def close(self, timeout: float) -> None:
        """Take nothing more, and wait for the answers that are due, `timeout` seconds at most: those that are missing
        then come when the adapter stops."""
        self._closed = True
        ends = self.loop.time() + timeout
        while self.busy and (left := ends - self.loop.time()) > 0:
            self._flush()
            under_way: set[asyncio.Future[Any]] = {*self._tasks, *self._ensuring.values()}
            if self._alone is not None:
                under_way.add(self._alone)
            await (asyncio.wait(under_way, timeout=left) if under_way else asyncio.sleep(0))

    def _flush(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._tasks) < _BATCHES:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            task = self.loop.create_task(self._send(batch), name="eventkit publish")
            self._tasks.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._flush()

    async def _send(self, batch: Sequence[tuple[Message, asyncio.Future[Exception | None]]]) -> None:
        answers = await self._hand_over([message for message, _ in batch])
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():  # its caller may have been cancelled
                future.set_result(answer)

    async def _hand_over(self, messages: Sequence[Message]) -> Sequence[Exception | None]:
        answers = await self._ask(messages) if messages else []
        if any(answers):
            gone = [
                place
                for place, answer in enumerate(answers)
                if isinstance(answer, NotProvisioned) and messages[place].address.kind in _MADE
            ]
            if gone:
                return await self._hand_over_again(messages, answers, gone)
        return answers

    async def _ask(self, messages: Sequence[Message]) -> Sequence[Exception | None]:
        try:
            async with asyncio.timeout(_DEADLINE):
                answers = await unbroken(self._adapter.publish(messages))
        except Exception as error:  # noqa: BLE001 an answer for each is owed, whatever the client raised
            return [error] * len(messages)
        if len(answers) == len(messages):
            return answers
        # whose answer is whose cannot be told
        wrong = RuntimeError(f"{self._adapter.name} gave {len(answers)} answers to {len(messages)} messages")
        return [wrong] * len(messages)

    async def _hand_over_again(
        self, messages: Sequence[Message], answers: Sequence[Exception | None], gone: Sequence[int]
    ) -> Sequence[Exception | None]:
        """Once more what went to a topic that was there, and has been deleted since: it is made again, if it may be."""
        self._known -= {messages[place].address for place in gone}
        refused = await self.ensure([messages[place] for place in gone])
        found = list(answers)
        there = [place for place in gone if messages[place].address not in refused]
        if there:
            for place, answer in zip(there, await self._ask([messages[place] for place in there]), strict=True):
                found[place] = answer
        return found

    async def _ensure(self, address: Address) -> Exception | None:
        """Make it, or look for it: once, however many ask at the same time."""
        if address.kind not in _MADE:
            return None
        while (other := self._ensuring.get(address)) is not None:
            await asyncio.wait([other])
            if not other.cancelled():
                return other.result()
        mine = self._ensuring[address] = self.loop.create_future()
        try:
            answer = await self._look_for(address)
            mine.set_result(answer)
            return answer
        finally:
            del self._ensuring[address]
            mine.cancel()  # its caller gave up: another one asks

    async def _look_for(self, address: Address) -> Exception | None:
        """Topics are made, or looked for; an inbox is only looked for: its owner alone makes it."""
        inbox = address.kind == "inbox"
        how = Provision.VALIDATE if inbox and self._provision is Provision.CREATE else self._provision
        try:
            async with asyncio.timeout(_DEADLINE):
                await unbroken(self._adapter.provision([address], how))
        except NotProvisioned as error:
            if inbox:
                refused: Exception = NoOwner(
                    f"the service {address.name!r} has no inbox on this broker: start it once, "
                    "or check the name in the command's service= and the namespace"
                )
                refused.__cause__ = error
                return refused
            return error
        except Exception as error:  # noqa: BLE001 the caller gets it as the answer to his message
            return error
        self._known.add(address)
        return None
