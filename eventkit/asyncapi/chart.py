"""The map of a document: which service publishes and takes what, as plain data that can be drawn (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from eventkit.asyncapi.bindings import OWN


@dataclass(frozen=True, slots=True)
class Note:
    """A message that somebody publishes or takes."""

    key: str
    """In `components.messages`."""
    type: str
    kind: str
    """event or command."""
    channel: str
    deprecated: bool = False

    @property
    def anchor(self) -> str:
        """Where the page tells of it."""
        return f"message-{self.key}"


@dataclass(frozen=True, slots=True)
class Arrow:
    """From a service to a message, or back."""

    service: str
    channel: str
    note: Note | None
    """None: whatever is on the channel."""
    sends: bool
    reply: str | None = None
    """What answers the command, by its title."""


@dataclass(frozen=True, slots=True)
class Aside:
    """Where a group's messages wait for another attempt, or for a person."""

    service: str
    group: str
    retry: str | None
    """The address; None: they are tried again in their place."""
    attempts: int
    dead: str


@dataclass(slots=True)
class Chart:
    """The services of a document, its topics with their messages, and what goes between them."""

    services: list[str] = field(default_factory=list)
    topics: dict[str, str] = field(default_factory=dict)
    """Their addresses, by the key of the channel."""
    notes: list[Note] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    asides: list[Aside] = field(default_factory=list)

    def on(self, channel: str) -> list[Note]:
        return [note for note in self.notes if note.channel == channel]

    @property
    def commands(self) -> list[Note]:
        return [note for note in self.notes if note.kind == "command"]

    def services_of(self, note: Note, *, sends: bool) -> list[str]:
        """Who publishes it, or takes it."""
        return sorted(
            {
                arrow.service
                for arrow in self.arrows
                if arrow.sends == sends and arrow.channel == note.channel and arrow.note in (None, note)
            }
        )


def chart(document: Mapping[str, Any]) -> Chart:
    """The map of an AsyncAPI document that eventkit wrote."""
    found = Chart([tag["name"] for tag in document["info"].get("tags", ())])
    components: Mapping[str, Any] = document.get("components", {}).get("messages", {})
    by_channel: dict[str, dict[str, Note]] = {}
    for key, channel in document.get("channels", {}).items():
        kind = channel[OWN]["kind"]
        if kind == "reply":
            continue
        if kind == "topic":
            found.topics[key] = channel["address"]
        notes = by_channel[key] = {
            name: _note(_last(reference["$ref"]), key, components) for name, reference in channel["messages"].items()
        }
        found.notes.extend(notes.values())
    for operation in document.get("operations", {}).values():
        found.arrows.extend(_arrows(operation, by_channel, components))
        aside = _aside(operation[OWN])
        if aside is not None and aside not in found.asides:
            found.asides.append(aside)
    found.arrows = list(dict.fromkeys(found.arrows))
    return found


def _note(key: str, channel: str, components: Mapping[str, Any]) -> Note:
    message = components[key]
    return Note(key, message[OWN]["type"], message[OWN]["kind"], channel, bool(message.get("deprecated")))


def _arrows(
    operation: Mapping[str, Any], by_channel: Mapping[str, Mapping[str, Note]], components: Mapping[str, Any]
) -> Iterator[Arrow]:
    channel, service, sends = _last(operation["channel"]["$ref"]), operation[OWN]["service"], _sends(operation)
    if "messages" not in operation:
        yield Arrow(service, channel, None, sends)
        return
    answers = [_last(answer["$ref"]) for answer in operation.get("reply", {}).get("messages", ())]
    for reference in operation["messages"]:
        note = by_channel[channel][_last(reference["$ref"])]
        yield Arrow(service, channel, note, sends, _reply(note, answers, components) if answers else None)


def _reply(note: Note, answers: list[str], components: Mapping[str, Any]) -> str | None:
    """How the value that answers a command is called; None where there is none."""
    for answer in answers:
        message = components[answer]
        if message[OWN].get("answers") == note.type:
            reference = message["payload"].get("$ref")
            return _last(reference) if reference else str(message["payload"].get("type", "reply"))
    return None


def _aside(own: Mapping[str, Any]) -> Aside | None:
    if "deadLetters" not in own:
        return None
    retry = own["retry"]
    return Aside(own["service"], own["group"], retry.get("address"), retry["attempts"], own["deadLetters"]["address"])


def _sends(operation: Mapping[str, Any]) -> bool:
    return bool(operation["action"] == "send")


def _last(reference: str) -> str:
    return reference.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
