"""The copies of a message that did not go through: to try again, to wait, and to keep as a dead letter (pure).

Each copy has a broker-level id of its own, or a broker's duplicate window would swallow it; the same copy made twice
has the same one. What failure adds is bounded.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from zlib import crc32

from eventkit import headers as h
from eventkit.adapter import Address, Delivery, Group, Message
from eventkit.wire import unwrap

TEXT = 1_000
"""Characters of an exception's text that are kept."""
STACK = 4_000
"""Characters of its stack that are kept: the innermost frames."""
_CUT = " [cut]"
_SHORTER = ((400, 200), (0, 50))
"""Characters of the stack, and of the text, that are kept where a broker finds a copy too large: first, and then."""
_LEAST = 100
"""Characters of somebody's own header that are kept in any case."""
_FAILURE = (h.REASON, h.ERROR_TYPE, h.ERROR_MESSAGE, h.ERROR_STACK, h.LAST_FAILURE)


class Reason(StrEnum):
    """Why a message is a dead letter."""

    EXHAUSTED = "exhausted"
    """All attempts failed."""
    GAVE_UP = "gave-up"
    """The handler raised `GiveUp`, or an exception that is never tried again."""
    UNDECODABLE = "undecodable"
    """It cannot become its class."""
    UNHANDLED = "unhandled"
    """A command that no handler here takes, after an hour of waiting for a replica that does."""
    UNSENDABLE = "unsendable"
    """Its handler succeeded, but a message it returned can never be sent."""
    QUARANTINED = "quarantined"
    """It killed its process again and again."""


def retry(delivery: Delivery, group: Group, *, attempt: int, due: datetime | None, failed_at: datetime) -> Message:
    """To be tried again: `attempt` is the one to come, from 2. Due None: at once."""
    return _to_retry(delivery, group, due, f"{attempt}", {h.ATTEMPT: str(attempt)}, failed_at)


def wait(delivery: Delivery, group: Group, *, due: datetime | None) -> Message:
    """To come back untried: the attempt stays as it is."""
    waited = waits(delivery.message) + 1
    return _to_retry(delivery, group, due, f"wait.{waited}", {h.WAITED: str(waited)}, None)


class Suspicion(NamedTuple):
    """What is known of a message that may have killed its process."""

    deaths: int
    """How often its process died while it was on trial."""
    moves: int
    """How many copies of it there were as a suspect."""
    trial: int
    """How often it may come until it is to have begun: it runs as soon as it comes where there is room for its trial.
    0: it waits for one."""


def suspect(delivery: Delivery, group: Group, known: Suspicion, *, due: datetime | None = None) -> Message:
    """To come back as a suspect: the attempt stays as it is."""
    moves = known.moves + 1
    said = f"{known.deaths} {moves} {known.trial}"
    step = f"suspect.{attempt(delivery.message)}.{waits(delivery.message)}.{moves}"
    return _to_retry(delivery, group, due, step, {h.SUSPECT: said}, None)


def suspicion(message: Message) -> Suspicion | None:
    """What is known of it as a suspect; None: it is none."""
    said = message.headers.get(h.SUSPECT)
    if said is None:
        return None
    numbers = said.split(" ")
    if len(numbers) != len(Suspicion._fields) or not all(map(_is_number, numbers)):
        return Suspicion(0, 0, trial=0)
    return Suspicion(*map(int, numbers))


def dead(
    delivery: Delivery,
    group: Group,
    *,
    reason: Reason,
    error: BaseException | None,
    attempt: int,
    failed_at: datetime,
) -> Message:
    """To be kept, with why, where and how often."""
    message = delivery.message
    stamp = failed_at.isoformat()
    carried = _carried(delivery, group)
    headers = {
        **carried,
        h.MESSAGE_ID: _copy_id(carried, group, f"{redriven(message)}.dead"),
        h.REASON: reason.value,
        h.ATTEMPT: str(attempt),
        h.LAST_FAILURE: stamp,
    }
    headers.setdefault(h.FIRST_FAILURE, stamp)
    if error is not None:
        headers.update(describe(error))
    return Message(group.dead, message.type, message.key, headers, message.body)


def redrive(letter: Message, group: Group) -> Message:
    """A dead letter to be tried again, by the group that failed and no other: attempt 1, one redrive more.

    A person wants it done now: no requester waits for it any more, and it does not expire.
    """
    count = redriven(letter) + 1
    headers = {name: value for name, value in letter.headers.items() if name not in _FAILURE}
    headers |= {
        h.ATTEMPT: "1",
        h.REDRIVEN: str(count),
        h.MESSAGE_ID: _copy_id(headers, group, f"redrive.{count}"),
    }
    for name in (h.FIRST_FAILURE, h.WAITED, h.DUE, h.EXPIRY, h.REPLY_TO):
        headers.pop(name, None)
    return Message(group.retry, letter.type, letter.key, headers, letter.body)


def describe(error: BaseException) -> dict[str, str]:
    """An exception as headers: its class, its text and its stack, cut and marked as cut.

    The text of an exception may hold what no broker takes: the name of a file that is no UTF-8, for one.
    """
    said = h.said(error)
    try:
        stack = h.writable("".join(traceback.format_exception(error)))
    except Exception:  # noqa: BLE001 whatever its `__str__` raises
        stack = "(its stack cannot be made)"
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return {
        h.ERROR_TYPE: _head(h.writable(name), TEXT),
        h.ERROR_MESSAGE: _head(said, TEXT),
        h.ERROR_STACK: _tail(stack, STACK),
    }


def shorter(copy: Message) -> Message | None:
    """The same copy with less in its headers, for a broker that finds it too large; None: nothing is left to cut.

    Others may write messages that leave no room for what a failure adds. That is cut first; only then the longest
    header of the message's own.
    """
    headers = dict(copy.headers)
    for stack, text in _SHORTER:
        if h.ERROR_STACK in headers:
            headers[h.ERROR_STACK] = _tail(headers[h.ERROR_STACK], stack)
        if h.ERROR_MESSAGE in headers:
            headers[h.ERROR_MESSAGE] = _head(headers[h.ERROR_MESSAGE], text)
        if headers != copy.headers:
            return copy._replace(headers=headers)
    own = h.user(headers)
    longest = max(own, key=lambda name: len(own[name]), default=None)
    if longest is None or len(own[longest]) <= _LEAST + len(_CUT):
        return None
    headers[longest] = _head(own[longest], max(_LEAST, len(own[longest]) // 2))
    return copy._replace(headers=headers)


def _head(said: str, most: int) -> str:
    """Its beginning, marked as cut; twice is once."""
    return said if len(said) <= most + (len(_CUT) if said.endswith(_CUT) else 0) else said[:most] + _CUT


def _tail(said: str, most: int) -> str:
    """Its end, in the same way."""
    mark = _CUT.strip()
    return said if len(said) <= most + (len(mark) if said.startswith(mark) else 0) else mark + said[len(said) - most :]


def brief(error: BaseException) -> str:
    """An exception in one line of a log."""
    described = describe(error)
    line = described[h.ERROR_MESSAGE].partition("\n")[0]
    return f"{described[h.ERROR_TYPE]}: {line}" if line else described[h.ERROR_TYPE]


def back(delivery: Delivery) -> Message:
    """What arrived, as it was at its original address: in binary mode, with an id."""
    message = unwrap(delivery.message)
    address = origin(message)
    if address != message.address:
        message = message._replace(address=address)
    if h.ID not in message.headers:
        message = message._replace(headers={**message.headers, h.ID: foreign_id(delivery)})
    return message


def attempt(message: Message) -> int:
    """Which attempt this is, from 1."""
    return _number(message, h.ATTEMPT) or 1


def waits(message: Message) -> int:
    """How often it came back untried."""
    return _number(message, h.WAITED)


def redriven(message: Message) -> int:
    """How often a person has sent it back from the dead letters."""
    return _number(message, h.REDRIVEN)


def taken(delivery: Delivery) -> bool:
    """Has its group had a handler for it? It comes from the group's own retry address, where it was put when that had
    failed or had to wait, or by a person who retries a dead letter; not just because it was published with a delay."""
    message = delivery.message
    if message.address.kind != "retry":
        return False
    waited = h.WAITED in message.headers and h.DUE not in message.headers
    return waited or h.FIRST_FAILURE in message.headers or redriven(message) > 0


def origin(message: Message) -> Address:
    """Where it was first published, also of a copy."""
    said = message.headers.get(h.ORIGIN)
    if said is None:
        return message.address
    kind, _, name = said.partition(":")
    name, _, physical = name.partition("|")
    if kind not in ("topic", "inbox"):
        return message.address
    return Address("topic" if kind == "topic" else "inbox", name, physical or None)


def _to_retry(
    delivery: Delivery,
    group: Group,
    due: datetime | None,
    step: str,
    changed: dict[str, str],
    failed_at: datetime | None,
) -> Message:
    message = delivery.message
    carried = _carried(delivery, group)
    headers = {**carried, **changed, h.MESSAGE_ID: _copy_id(carried, group, f"{redriven(message)}.{step}")}
    if failed_at is not None:
        headers.setdefault(h.FIRST_FAILURE, failed_at.isoformat())
    return Message(group.retry, message.type, message.key, headers, message.body, due)


def _carried(delivery: Delivery, group: Group) -> dict[str, Any]:
    """What every copy keeps; a foreign message gets the id that it had been lacking."""
    message = delivery.message
    headers = dict(message.headers)
    headers.pop(h.SUSPECT, None)
    headers.setdefault(h.ID, _id(delivery))
    headers.setdefault(h.TYPE, message.type)
    if message.key is not None:
        headers.setdefault(h.PARTITION_KEY, message.key)
    headers[h.GROUP] = group.name
    if h.ORIGIN not in headers:
        address = message.address
        headers[h.ORIGIN] = str(address) + (f"|{address.physical}" if address.physical else "")
    return headers


def _copy_id(carried: Mapping[str, str], group: Group, step: str) -> str:
    """The broker-level id of a copy. A message's own id is unique to its source alone, and people who choose theirs
    give it to an order's every event: two messages of one id must not be taken for one."""
    about = "\n".join(carried.get(name, "") for name in (h.SOURCE, h.TYPE, h.ORIGIN))
    return f"{carried.get(h.ID, '')}.{crc32(about.encode(errors='surrogatepass')):08x}.{group.name}.{step}"


def _id(delivery: Delivery) -> str:
    return delivery.message.headers.get(h.ID) or foreign_id(delivery)


def foreign_id(delivery: Delivery) -> str:
    """An id for a message that has none: the same at each redelivery."""
    return f"{delivery.message.address}@{delivery.position}"


def _number(message: Message, name: str) -> int:
    said = message.headers.get(name, "")
    return int(said) if _is_number(said) else 0


def _is_number(said: str) -> bool:
    """Longer ones are none of ours; Python itself refuses to read very long ones."""
    return said.isdecimal() and len(said) < 10
