"""What a service reads and sends against what another one's committed document says (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eventkit.asyncapi.changes import PRODUCERS, Change
from eventkit.asyncapi.compare import message_changes
from eventkit.asyncapi.contract import Contract, read
from eventkit.asyncapi.document import document
from eventkit.asyncapi.errors import DocumentError
from eventkit.messages import Command, Event, routing
from eventkit.service import Service


def misfits(committed: Mapping[str, Any], service: Service, *classes: type[Event | Command[Any]]) -> list[Change]:
    """Where this service no longer fits a document that others committed: empty, if all fits.

    Of the events that it reads: one that the document's services no longer publish, or write in a way that the class
    here cannot read. Of the commands that it says it sends: one that nobody takes there any more, or takes otherwise.
    Without `classes` all that has a channel in the document is looked at; with them exactly those, also where the
    document has no such channel any more. Raises DocumentError where nothing is left to look at.
    """
    theirs, ours = read(committed), read(document(service))
    wanted = {routing(cls).type for cls in classes}
    looked = False
    found: list[Change] = []
    for key, type_ in _of(ours):
        if type_ not in wanted and (wanted or key not in theirs.channels):
            continue
        looked = True
        found.extend(_misfits(theirs, ours, key, type_))
    if not looked and wanted:
        raise DocumentError(f"{service.name} neither reads nor sends {', '.join(sorted(wanted))}")
    if not looked:
        channels = ", ".join(sorted(theirs.channels)) or "none"
        raise DocumentError(f"the document has no channel that {service.name} reads or sends to; it has {channels}")
    return found


def _of(ours: Contract) -> Iterator[tuple[str, str]]:
    """The channel and type of each event that is read, and of each command that is sent."""
    for key, channel in ours.channels.items():
        for type_, message in channel.messages.items():
            if type_ in (channel.received if message.kind == "event" else channel.sent - channel.received):
                yield key, type_


def _misfits(theirs: Contract, ours: Contract, key: str, type_: str) -> Iterator[Change]:
    mine, other = ours.channels[key], theirs.channels.get(key)
    event = mine.messages[type_].kind == "event"
    if other is None or type_ not in (other.sent if event else other.received):
        rule, does = ("message-unsent", "publishes") if event else ("message-unhandled", "handles")
        text = f"no service of the document {does} {type_} on {key}"
        yield Change(rule, f"{key}/{type_}", text, frozenset({PRODUCERS}))
        return
    sides = (theirs, ours, other, mine) if event else (ours, theirs, mine, other)
    for change in message_changes(*sides, type_):
        if PRODUCERS in change.breaks:
            yield change
