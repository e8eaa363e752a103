"""Questions to the server: many in one write, their answers gathered on one inbox."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Sequence
from itertools import count
from typing import Any, Final, TypeAlias

from nats.errors import NoRespondersError
from nats.js.errors import APIError, ServiceUnavailableError

from eventkit.errors import Closed
from eventkit_nats.link import Link

Question: TypeAlias = tuple[bytes, bytes]
"""A protocol line cut in two where the subject of its answer goes, such as `PUB orders ` and ` 2\\r\\nhi\\r\\n`."""

Answer: TypeAlias = bytes | Exception
"""The body of the answer; or NoRespondersError where nobody listens, TimeoutError where none came in time."""

ECHO: Final = b" 0\r\n\r\n"
"""Behind `PUB `, an empty message to ourselves: it arrives when the server has handled all before it."""

PAUSE: Final = 0.05
"""Seconds before what was unavailable is asked again, for the first time."""

_WINDOW = 4096
"""Unanswered questions, counting one more for each 16 KiB: past 10,000 the server refuses what it cannot store yet."""
_CHUNK = 128 * 1024
_PATIENCE = 1.0
"""Seconds without an answer before a question is asked again, at least."""


_may_not = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE).search

_PASSING = (10008,)
"""JetStream's numbers for what is over soon: the system is unavailable for the moment."""


class NotNow(ServiceUnavailableError):
    """Nobody answers at the moment, as while a leader is elected or the server starts. Soon perhaps."""

    def __init__(self, description: str) -> None:
        super().__init__(code=503, description=description)


class _Call:
    __slots__ = ("answers", "done", "left", "open", "questions", "timer", "written")

    def __init__(self, questions: Sequence[Question], done: asyncio.Future[None]) -> None:
        self.questions = questions
        self.answers: list[Answer | None] = [None] * len(questions)
        self.left = len(questions)
        self.written = 0
        self.open = 0
        self.done = done
        self.timer: asyncio.TimerHandle | None = None


class Exchange:
    """Keeps the order of what is asked.

    What a lost connection left unanswered is asked again on the next one, in the same order, until the deadline, and
    what stays unanswered twice on the way there: a leader that fell took it along. Each question must bear that (a
    publish does by its `Nats-Msg-Id`).
    """

    def __init__(self, link: Link, timeout: float, domain: str | None) -> None:
        self.timeout = timeout
        self.prefix = f"$JS.{domain}.API" if domain else "$JS.API"
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._inbox = f"{link.inbox}.a".encode()
        self._cut = len(self._inbox) + 1
        self._numbers = count()
        self._calls: dict[int, _Call] = {}
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._open = 0
        self._room: asyncio.Future[None] | None = None
        self._closed = False
        link.on_up.append(self._again)
        link.on_said.append(self._denied)
        link.subscribe(f"{link.inbox}.a.>", self._answer)

    async def ask(self, questions: Sequence[Question], timeout: float | None = None) -> list[Answer]:
        """One answer each, in order, within `timeout` seconds (None: the usual)."""
        if not questions:
            return []
        if self._closed:
            raise Closed("the NATS adapter is stopped")
        number = next(self._numbers)
        call = self._calls[number] = _Call(questions, self._loop.create_future())
        limit = self.timeout if timeout is None else timeout
        self._wind(number, call, self._loop.time() + limit, max(_PATIENCE, limit / 3))
        try:
            # what can go out at once needs neither turn nor time-out, unless others wait for their turn
            if self._waiting or not self._write(number, call):
                self._waiting += 1
                try:
                    await self._write_rest(number, call, limit)
                finally:
                    self._waiting -= 1
            await call.done
        finally:
            if call.timer is not None:
                call.timer.cancel()
            del self._calls[number]
            self._release(call.open)
        late: Exception = (
            Closed("the NATS adapter was stopped before the server answered")
            if self._closed
            else TimeoutError(
                f"NATS: no answer within {limit:g} s" + (f" ({self._link.error})" if self._link.error else "")
            )
        )
        return [late if answer is None else answer for answer in call.answers]

    async def fence(self, timeout: float) -> bool:
        """Has the server handled all that was written before? False: not within `timeout` seconds."""
        return (await self.ask([(b"PUB ", ECHO)], timeout))[0] == b""

    async def api(
        self, what: str, request: object = None, *, patient: bool = True, timeout: float | None = None
    ) -> dict[str, Any]:
        """JetStream's own interface: `api("STREAM.INFO.orders")`. Raises its errors, and TimeoutError. Patient: what is
        only unavailable at the moment, as while a leader is elected, is asked again until the time is over."""
        question = [self.question(what, request)]
        deadline = self._loop.time() + (self.timeout if timeout is None else timeout)
        pause = PAUSE
        while True:
            try:
                return judged((await self.ask(question, deadline - self._loop.time()))[0])
            except NotNow:
                if not patient or self._loop.time() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    def question(self, what: str, request: object = None) -> Question:
        body = b"" if request is None else json.dumps(request).encode()
        return f"PUB {self.prefix}.{what} ".encode(), b" %d\r\n%b\r\n" % (len(body), body)

    def close(self) -> None:
        """Ends what waits; nothing can be asked any more."""
        self._closed = True
        for call in self._calls.values():
            _end(call.done)
        self._go_on()

    def _write(self, number: int, call: _Call) -> bool:
        """As much as may go out now. True: that was the rest."""
        questions, index = call.questions, call.written
        if not self._link.up.is_set():
            return False
        lines: list[bytes] = []
        size = 0
        while index < len(questions) and self._open < _WINDOW and size < _CHUNK:
            head, rest = questions[index]
            lines.append(b"%b%b.%d.%d%b" % (head, self._inbox, number, index, rest))
            size += len(rest)
            cost = 1 + (len(rest) >> 14)
            call.open += cost
            self._open += cost
            index += 1
        call.written = index
        self._link.write(b"".join(lines))
        return index == len(questions)

    async def _write_rest(self, number: int, call: _Call, limit: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit), self._turn:
                while not (call.done.done() or self._closed or self._write(number, call)):
                    if self._open >= _WINDOW or not self._link.up.is_set():
                        self._room = self._loop.create_future()
                        await self._room
                    await self._link.drain()

    def _answer(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        number, _, place = subject[self._cut :].partition(b".")
        call = self._calls.get(int(number))
        if call is None:
            return
        index = int(place)
        if call.answers[index] is None:
            nobody = headers is not None and headers.startswith(b"NATS/1.0 503")
            self._take(call, index, NoRespondersError() if nobody else data)

    def _denied(self, error: Exception) -> None:
        """What we may not ask is never answered: the server says so on the side, with the subject in small letters."""
        found = _may_not(str(error))
        if found is None:
            return
        subject = found[2].encode()
        if found[1] == "subscription" and not self._inbox.lower().startswith(subject.rstrip(b">*.")):
            return
        for call in list(self._calls.values()):
            for index in range(call.written):
                asks = call.questions[index][0].split(b" ", 2)[1].lower()
                if call.answers[index] is None and (found[1] == "subscription" or asks == subject):
                    self._take(call, index, error)

    def _take(self, call: _Call, index: int, answer: Answer) -> None:
        call.answers[index] = answer
        cost = 1 + (len(call.questions[index][1]) >> 14)
        call.open -= cost
        self._release(cost)
        call.left -= 1
        if not call.left:
            _end(call.done)

    def _release(self, cost: int) -> None:
        self._open -= cost
        if self._room is not None and self._open < _WINDOW // 2:
            self._go_on()

    def _go_on(self) -> None:
        if self._room is not None:
            _end(self._room)
            self._room = None

    def _wind(self, number: int, call: _Call, ends: float, step: float) -> None:
        call.timer = self._loop.call_at(min(ends, self._loop.time() + step), self._late, number, call, ends, step)

    def _late(self, number: int, call: _Call, ends: float, step: float) -> None:
        if self._loop.time() >= ends:
            _end(call.done)
        else:
            self._repeat(number, call)
            self._wind(number, call, ends, step)

    def _again(self) -> None:
        for number, call in self._calls.items():
            self._repeat(number, call)
        self._go_on()

    def _repeat(self, number: int, call: _Call) -> None:
        lines = [
            b"%b%b.%d.%d%b" % (call.questions[index][0], self._inbox, number, index, call.questions[index][1])
            for index in range(call.written)
            if call.answers[index] is None
        ]
        if lines:
            self._link.write(b"".join(lines))


def _end(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def judged(answer: Answer) -> dict[str, Any]:
    """An answer of JetStream's interface as data; raises what it says is wrong."""
    if isinstance(answer, NoRespondersError):
        raise NotNow("JetStream does not answer: is it enabled?") from answer
    if isinstance(answer, Exception):
        raise answer
    found: dict[str, Any] = json.loads(answer)
    if "error" in found:
        raise error_of(found)
    return found


def error_of(found: dict[str, Any]) -> Exception:
    """What JetStream says is wrong, as the client's error."""
    said = found["error"]
    if said.get("err_code") in _PASSING:
        return NotNow(said.get("description"))
    try:
        APIError.from_error(
            {"code": said.get("code"), "err_code": said.get("err_code"), "description": said.get("description")}
        )
    except APIError as error:
        return error
    return APIError(code=said.get("code"), description=said.get("description"))
