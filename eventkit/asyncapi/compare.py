"""The check: how the document of the code differs from a committed one, and whom that breaks (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from eventkit.asyncapi.changes import PRODUCERS, RULES, Change, Rule, Side, shown, type_of
from eventkit.asyncapi.contract import ChannelView, Contract, MessageView, read
from eventkit.asyncapi.errors import DocumentError
from eventkit.asyncapi.payloads import differences
from eventkit.asyncapi.texts import ordered
from eventkit.copies import brief


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """All changes from one document to another, those that break first. Servers and bindings are not compared.

    DocumentError, if the old one is malformed.
    """
    try:
        return _compare(read(old), read(new), old, new)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, DocumentError):
            raise
        # somebody edited it: a list in the place of a mapping, a text in that of a number, a part that holds itself
        raise DocumentError(f"the document is malformed: {brief(error)}") from error


def _compare(before: Contract, after: Contract, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    found = [*_channels(before, after), *_moved(before, after)]
    for old_channel, new_channel in _pairs(before, after):
        found.extend(_policies(old_channel, new_channel))
        for type_ in old_channel.messages:
            if type_ in new_channel.messages:
                found.extend(message_changes(before, after, old_channel, new_channel, type_))
    if not found and _rest(old) != _rest(new):
        found.append(Change("document-changed", "document", "something else in the document is different"))
    # an example follows the schema that it is made from: said only where nothing else is
    loud = {_message_of(change) for change in found if change.rule != "text-changed"}
    unique = {
        (change.id, change.before, change.after): change
        for change in found
        if change.rule != "text-changed" or _message_of(change) not in loud
    }
    return sorted(unique.values(), key=lambda change: (not change.breaks, change.where, change.rule))


def _message_of(change: Change) -> tuple[str, ...]:
    return tuple(change.where.split("/")[:2])


class _Place(NamedTuple):
    channel: ChannelView
    message: MessageView

    @property
    def where(self) -> str:
        return f"{self.channel.key}/{self.message.type}"


def _pairs(before: Contract, after: Contract) -> Iterator[tuple[ChannelView, ChannelView]]:
    for key, channel in before.channels.items():
        if key in after.channels:
            yield channel, after.channels[key]


def _channels(before: Contract, after: Contract) -> Iterator[Change]:
    for old, new in _pairs(before, after):
        if old.address != new.address:
            breaks = RULES["address-changed"].event
            yield Change(
                "address-changed",
                old.key,
                f"the channel {old.key} moves from {shown(old.address)} to {shown(new.address)}: "
                "who is not changed at the same time reads and writes the old one",
                breaks,
                shown(old.address),
                shown(new.address),
            )
    for key in after.channels.keys() - before.channels.keys():
        yield Change("channel-added", key, f"the channel {key} is new")


def _moved(before: Contract, after: Contract) -> Iterator[Change]:
    """Messages that are gone, new, renamed, or on another channel."""
    gone, come = _only_in(before, after), _only_in(after, before)
    for place in gone:
        successor, rule = _successor(place, come, before, after)
        if successor is None:
            yield _removed(place)
            continue
        come.remove(successor)
        yield Change(
            rule,
            place.where,
            _MOVED[rule].format(old=place, new=successor),
            _side(RULES[rule], place.message),
            place.where,
            successor.where,
        )
    for place in come:
        yield Change("message-added", place.where, f"{place.message.type} is new", after=place.where)


_MOVED = {
    "address-changed": "{old.message.type} moves from the channel {old.channel.key} to {new.channel.key}",
    "kind-changed": "{old.message.type} was of kind {old.message.kind} and is now of kind {new.message.kind}",
    "type-name-changed": "{old.message.type} is called {new.message.type} on the wire now: "
    'keep the name with type="{old.message.type}"',
}


def _only_in(one: Contract, other: Contract) -> list[_Place]:
    return [
        _Place(channel, message)
        for key, channel in one.channels.items()
        for type_, message in channel.messages.items()
        if key not in other.channels or type_ not in other.channels[key].messages
    ]


def _successor(place: _Place, come: list[_Place], before: Contract, after: Contract) -> tuple[_Place | None, str]:
    same_type = [item for item in come if item.message.type == place.message.type]
    if len(same_type) == 1:
        return same_type[0], "address-changed" if same_type[0].message.kind == place.message.kind else "kind-changed"
    for item in come:
        if item.channel.key == place.channel.key and item.message.kind == place.message.kind:
            changed = differences(place.message.payload, item.message.payload, before.resolve, after.resolve)
            if all(difference.rule == "text-changed" for difference in changed):
                return item, "type-name-changed"
    return None, ""


def _removed(place: _Place) -> Change:
    type_, channel = place.message.type, place.channel
    if place.message.kind == "event" and type_ not in channel.sent:
        return Change("message-unhandled", place.where, f"{type_} is no longer handled", before=place.where)
    if place.message.kind == "command" and type_ not in channel.received:
        return Change("message-unsent", place.where, f"{type_} is no longer sent", before=place.where)
    sides = _side(RULES["message-removed"], place.message)
    who = "who waits for it gets nothing" if place.message.kind == "event" else "who sends it is not heard"
    return Change("message-removed", place.where, f"{type_} is gone: {who}", sides, before=place.where)


def _side(rule: Rule, message: MessageView) -> frozenset[Side]:
    return rule.event if message.kind == "event" else rule.command


def message_changes(
    before: Contract, after: Contract, old_channel: ChannelView, new_channel: ChannelView, type_: str
) -> Iterator[Change]:
    """How a message that both have differs."""
    old, new = old_channel.messages[type_], new_channel.messages[type_]
    where = f"{new_channel.key}/{type_}"

    def change(rule: str, text: str, was: object = "", becomes: object = "") -> Change:
        return Change(rule, where, text, _side(RULES[rule], new), shown(was), shown(becomes))

    if old.kind != new.kind:
        yield change(
            "kind-changed", f"{type_} was of kind {old.kind} and is now of kind {new.kind}", old.kind, new.kind
        )
    if type_ in old_channel.sent - new_channel.sent:
        yield change("message-unsent", f"{type_} is no longer sent by any service of the document")
    if type_ in old_channel.received - new_channel.received:
        yield change("message-unhandled", f"{type_} is no longer handled by any service of the document")
    yield from _routing(old, new, change)
    upcast = new.version > old.version and old.version in new.upcasts
    for difference in differences(old.payload, new.payload, before.resolve, after.resolve):
        rule = RULES[difference.rule]
        sides = _side(rule, new)
        spared = upcast and PRODUCERS in sides
        yield Change(
            difference.rule,
            _inside(where, difference.path),
            _said(type_, difference.path, rule, difference.before, difference.after)
            + (f" (version {old.version} is upcast)" if spared else ""),
            sides - {PRODUCERS} if upcast else sides,
            difference.before,
            difference.after,
        )
    yield from _reply(before, after, old, new, where)
    if old.texts != new.texts:
        yield change("text-changed", f"{type_}: {RULES['text-changed'].meaning}")


def _routing(old: MessageView, new: MessageView, change: Any) -> Iterator[Change]:
    if old.version != new.version:
        rule = "version-raised" if new.version > old.version else "version-lowered"
        told = f"{new.type} goes from version {old.version} to {new.version}"
        yield change(rule, told, old.version, new.version)
    if old.key != new.key:
        rule = "key-added" if old.key is None else "key-changed"
        told = f"{new.type} is ordered by {new.key or 'nothing'}, before by {old.key or 'nothing'}"
        yield change(rule, told, old.key or "none", new.key or "none")
    if old.content_type != new.content_type:
        told = f"{new.type} is written as {new.content_type}, before as {old.content_type}"
        yield change("content-type-changed", told, old.content_type, new.content_type)


def _reply(before: Contract, after: Contract, old: MessageView, new: MessageView, where: str) -> Iterator[Change]:
    """The value that answers a command is read by who sent it."""
    if old.reply is None or new.reply is None:
        if old.reply is not None:
            rule = RULES["reply-removed"]
            text = f"{new.type} answers with no value any more"
            yield Change("reply-removed", f"{where}/reply", text, rule.command, type_of(old.reply))
        elif new.reply is not None:
            text = f"{new.type} answers with a value now"
            yield Change("reply-added", f"{where}/reply", text, after=type_of(new.reply))
        return
    for difference in differences(old.reply, new.reply, before.resolve, after.resolve):
        rule = RULES[difference.rule]
        yield Change(
            difference.rule,
            _inside(f"{where}/reply", difference.path),
            _said(f"reply to {new.type}", difference.path, rule, difference.before, difference.after),
            rule.reply,
            difference.before,
            difference.after,
        )


def _inside(where: str, path: str) -> str:
    return f"{where}/{path}" if path else where


def _said(name: str, path: str, rule: Rule, before: str, after: str) -> str:
    change = f" ({before} -> {after})" if before and after else f" ({before or after})" if before or after else ""
    return f"{name}{'.' if path else ''}{path}: {rule.meaning}{change}"


def _policies(old: ChannelView, new: ChannelView) -> Iterator[Change]:
    for operation in sorted(old.policies.keys() & new.policies.keys()):
        before, after = old.policies[operation], new.policies[operation]
        if before != after:
            words = sorted(word for word in {*before, *after} if before.get(word) != after.get(word))
            yield Change(
                "policy-changed",
                f"{new.key}/{operation}",
                f"{operation}: {', '.join(words)} changed",
                frozenset(),
                shown({word: before.get(word) for word in words}),
                shown({word: after.get(word) for word in words}),
            )


def _rest(document: Mapping[str, Any]) -> Any:
    """All but what differs from broker to broker."""

    def without(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: without(value) for key, value in node.items() if key not in ("bindings", "securitySchemes")}
        return [without(item) for item in node] if isinstance(node, list) else node

    return ordered(without({key: value for key, value in document.items() if key not in ("servers", "asyncapi")}))
