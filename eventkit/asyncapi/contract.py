"""What a document promises, read from its text: channels, messages, who sends and receives them.

Also of a document that somebody edited, or that another tool wrote, as far as it says enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from eventkit.asyncapi.bindings import OWN
from eventkit.asyncapi.document import FORMAT, VERSIONS
from eventkit.asyncapi.errors import DocumentError
from eventkit.asyncapi.texts import load_yaml_library

Kind: TypeAlias = Literal["event", "command"]


@dataclass(frozen=True, slots=True)
class MessageView:
    """One message of one channel."""

    type: str
    kind: Kind
    version: int
    key: str | None
    content_type: str
    upcasts: frozenset[int]
    payload: Any
    texts: Any
    """What is only for people."""
    reply: Any = None
    """The schema of the value that answers a command; None: it answers with none."""


@dataclass(slots=True)
class ChannelView:
    key: str
    address: str | None
    messages: dict[str, MessageView] = field(default_factory=dict)
    """By type."""
    sent: set[str] = field(default_factory=set)
    """The types that a service of the document sends."""
    received: set[str] = field(default_factory=set)
    policies: dict[str, Any] = field(default_factory=dict)
    """Retries, dead letters and time limits, by operation."""


@dataclass(frozen=True, slots=True)
class Contract:
    """A document, read."""

    document: Mapping[str, Any]
    channels: Mapping[str, ChannelView]
    """By key."""

    def resolve(self, node: Any) -> Any:
        return resolve(self.document, node)


def load(path: Path) -> dict[str, Any]:
    """The document in a file, JSON or YAML. DocumentError says in one line what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise DocumentError(f"{path}: cannot be read: {reason}") from None
    document = parse(text, str(path))
    check_version(document, str(path))
    return document


def parse(text: str, name: str) -> dict[str, Any]:
    """JSON or YAML as a mapping."""
    try:
        value = json.loads(text) if text.lstrip().startswith("{") else _from_yaml(text, name)
    except json.JSONDecodeError as error:
        raise DocumentError(f"{name}: line {error.lineno}: it is no JSON: {error.msg}") from None
    except RecursionError:
        raise DocumentError(f"{name}: it is nested too deeply") from None
    if not isinstance(value, dict):
        raise DocumentError(f"{name}: it holds {type(value).__name__ if value is not None else 'nothing'}, no mapping")
    return value


def _from_yaml(text: str, name: str) -> Any:
    yaml = load_yaml_library()

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        """Dates stay text, as in JSON."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f"line {mark.line + 1}: "
        raise DocumentError(f"{name}: {place}it is no YAML: {getattr(error, 'problem', None) or error}") from None


def check_version(document: Mapping[str, Any], name: str) -> None:
    """DocumentError for what this release of eventkit cannot read."""
    said = document.get("asyncapi")
    if not isinstance(said, str):
        raise DocumentError(f"{name}: it is no AsyncAPI document: it does not begin with `asyncapi: {VERSIONS[0]}`")
    numbers = said.partition("-")[0].split(".")
    if not all(number.isdecimal() for number in numbers):
        raise DocumentError(f"{name}: asyncapi: {said!r} is no version")
    version = tuple(int(number) for number in numbers)[:2]
    newest = tuple(int(number) for number in VERSIONS[-1].split("."))[:2]
    if version > newest:
        raise DocumentError(
            f"{name}: it is AsyncAPI {said}, newer than {VERSIONS[-1]}, which eventkit reads: upgrade it"
        )
    if version < (3,):
        raise DocumentError(f"{name}: it is AsyncAPI {said}; eventkit reads 3.x: write it anew with `eventkit docs`")
    own = document.get(OWN)
    written = own.get("format", FORMAT) if isinstance(own, dict) else FORMAT
    if not isinstance(written, int) or written > FORMAT:
        raise DocumentError(f"{name}: a newer eventkit wrote it (format {written}, known here: {FORMAT}): upgrade it")


def resolve(document: Mapping[str, Any], node: Any) -> Any:
    """What a reference inside the document leads to; anything else as it is."""
    seen: list[str] = []
    while isinstance(node, dict) and isinstance(node.get("$ref"), str):
        pointer = node["$ref"]
        if pointer in seen:
            raise DocumentError(f"the reference {pointer!r} leads back to itself")
        seen.append(pointer)
        node = _at(document, pointer)
    return node


def _at(document: Mapping[str, Any], pointer: str) -> Any:
    if not pointer.startswith("#/"):
        raise DocumentError(f"the reference {pointer!r} leads out of the document: bundle it into one")
    node: Any = document
    for part in pointer[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, dict) or key not in node:
            raise DocumentError(f"the reference {pointer!r} leads nowhere")
        node = node[key]
    return node


def read(document: Mapping[str, Any]) -> Contract:
    """What a document promises. DocumentError where it is malformed."""
    channels: dict[str, ChannelView] = {}
    for key, node in _mapping(document.get("channels", {}), "channels").items():
        channel = _mapping(resolve(document, node), f"channels/{key}")
        own = _own(channel)
        if own.get("kind") == "reply":
            continue
        view = ChannelView(key, channel.get("address"))
        for name, reference in _mapping(channel.get("messages") or {}, f"channels/{key}/messages").items():
            message = _mapping(resolve(document, reference), f"channels/{key}/messages/{name}")
            found = _message(document, name, message)
            if found is not None:
                view.messages[found.type] = found
        channels[key] = view
    for key, node in _mapping(document.get("operations", {}), "operations").items():
        _operation(document, channels, key, _mapping(resolve(document, node), f"operations/{key}"))
    return Contract(document, channels)


def _message(document: Mapping[str, Any], name: str, message: Mapping[str, Any]) -> MessageView | None:
    own = _own(message)
    tags = [resolve(document, tag).get("name") for tag in message.get("tags", ())]
    said = own.get("kind") or ("command" if "command" in tags else "event")
    if said not in ("event", "command"):
        return None
    kind: Kind = "event" if said == "event" else "command"
    version, upcasts = own.get("version", 1), own.get("upcastsFrom", [])
    if not isinstance(version, int) or not isinstance(upcasts, list):
        raise DocumentError(f"message {name}: {OWN} holds no version, or no list of versions")
    return MessageView(
        type=own.get("type") or message.get("name") or name,
        kind=kind,
        version=version,
        key=own.get("key"),
        content_type=message.get("contentType") or document.get("defaultContentType") or "application/json",
        upcasts=frozenset(upcasts),
        payload=message.get("payload", True),
        texts=[message.get(word) for word in ("title", "summary", "description", "examples", "deprecated")],
    )


def _operation(
    document: Mapping[str, Any], channels: Mapping[str, ChannelView], key: str, operation: Mapping[str, Any]
) -> None:
    reference = _mapping(operation.get("channel"), f"operations/{key}/channel").get("$ref")
    channel = resolve(document, {"$ref": reference})
    view = next((channels[name] for name, node in document["channels"].items() if node is channel), None)
    if view is None:
        return
    listed = operation.get("messages")
    types = view.messages if listed is None else list(_types(document, listed))
    target = view.sent if operation.get("action") == "send" else view.received
    target.update(types)
    own = _own(operation)
    view.policies[key] = {
        word: own[word] for word in ("retry", "deadLetters", "timeout", "group", "batch") if word in own
    }
    reply = operation.get("reply")
    if reply is not None:
        _replies(document, view, reply)


def _types(document: Mapping[str, Any], listed: Any) -> Iterator[str]:
    for reference in listed:
        message = resolve(document, reference)
        name = str(reference.get("$ref", "")).rpartition("/")[2]
        yield _own(message).get("type") or message.get("name") or name


def _replies(document: Mapping[str, Any], view: ChannelView, reply: Any) -> None:
    """Which value answers which command: the reply's key is the command's with `.reply`."""
    values: dict[str, Any] = {}
    for reference in _mapping(resolve(document, reply), "reply").get("messages", ()):
        message = resolve(document, reference)
        if _own(message).get("outcome", "ok") == "ok":
            command = _own(message).get("answers")
            values[str(command)] = message.get("payload")
    for type_, message in list(view.messages.items()):
        if type_ in values:
            view.messages[type_] = _with_reply(message, values[type_])


def _with_reply(message: MessageView, reply: Any) -> MessageView:
    words = {name: getattr(message, name) for name in MessageView.__dataclass_fields__}
    return MessageView(**{**words, "reply": reply})


def _own(node: Mapping[str, Any]) -> Mapping[str, Any]:
    own = node.get(OWN)
    return own if isinstance(own, dict) else {}


def _mapping(node: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(node, dict):
        raise DocumentError(f"{where} is no mapping")
    return node
