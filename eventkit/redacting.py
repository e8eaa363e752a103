"""Redacting: what of a message must not be shown to people is hidden, wherever a payload is printed.

EVENTKIT_REDACT names it. Messages on the broker stay as they are: this is about `eventkit tail`, dead letters that are
shown, the page of `eventkit ui` and DEBUG logs.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias, get_args, get_origin

from pydantic import AliasChoices, BaseModel, Secret, SecretBytes, SecretStr

from eventkit import headers as h
from eventkit.adapter import Message
from eventkit.errors import SettingsError
from eventkit.letter import DeadLetter
from eventkit.letter import read as read_letter
from eventkit.messages import every_declared, routing

Hide: TypeAlias = Callable[[str, Any], object]
"""Given the path of a field (`payment.card_number`) and its value, says what is shown: the value itself, or another."""

HIDDEN = "***"
"""What stands in place of what is hidden."""
_SHORTEST = 4
"""Characters: a hidden value that is shorter is not looked for in texts, where it may be part of anything."""
_INPUT = re.compile(r"input_value=.*?(?=, input_type=)", re.DOTALL)
"""How pydantic tells in an error what it was given."""
_TEXTS = (h.ERROR_MESSAGE, h.ERROR_STACK)
_STRUCTURE = frozenset(
    {h.SPECVERSION, h.ID, h.SOURCE, h.TYPE, h.TIME, h.VERSION, h.CORRELATION, h.CAUSATION, h.EXPIRY, h.CONTENT_TYPE}
    | {h.CORRELATION_ID, h.MESSAGE_ID, h.REPLY_TO, h.TRACEPARENT, h.TRACESTATE}
    | {h.ATTEMPT, h.GROUP, h.ORIGIN, h.DUE, h.WAITED, h.REDRIVEN, h.FIRST_FAILURE, h.LAST_FAILURE}
    | {h.REASON, h.ERROR_TYPE, h.OUTCOME, h.SUSPECT}
)
"""Headers that hold nothing of a payload."""


class _Declared(NamedTuple):
    """By the classes of one wire name."""

    secrets: frozenset[tuple[str, ...]]
    keys: frozenset[str]
    """The fields that their keys are taken from."""


class Redactor:
    """Knows what is hidden: fields by their names, what a function of the user says, and secrets by their types."""

    def __init__(self, names: Iterable[str] = (), hide: Sequence[Hide] = ()) -> None:
        """`names`: of fields at any depth of a JSON body, and of headers; `payment.number` is the field `number` of any
        `payment`. Case, `_` and `-` make no difference: `card_number` is `cardNumber`, too. `hide`: asked about each
        field that no name hides; where it fails, the field is hidden."""
        self._rules = {_words(name) for name in names if name}
        self._hide = tuple(hide)
        self._known: dict[str, _Declared] = {}

    def shown(self, message: Message) -> Message:
        """The message as it may be shown; itself, if nothing of it is to be hidden.

        A key, a header or the text of an error that repeats what the body hides is hidden there, too. A body that is
        no JSON cannot be looked into, and is hidden as a whole, unless there is no rule at all.
        """
        rules = self._rules | self._declared(message.type).secrets
        if not rules and not self._hide:
            return message
        body, hidden = _Body(rules, self._hide).read(message)
        headers = {name: self._header(rules, name, value, hidden) for name, value in message.headers.items()}
        key = HIDDEN if message.key in hidden else self.key(message)
        return message._replace(body=body, headers=headers, key=key)

    def key(self, message: Message) -> str | None:
        """The key as it may be shown, by the field that the message's class takes it from; the body is not read."""
        declared = self._declared(message.type)
        rules = self._rules | declared.secrets
        if message.key is None or (not rules and not self._hide):
            return message.key
        if any((word,) in rules for word in map(_word, declared.keys)):
            return HIDDEN
        for field in declared.keys:
            for hide in self._hide:
                if _ask(hide, field, message.key) != message.key:
                    return HIDDEN
        return message.key

    def text(self, text: str, message: Message) -> str:
        """What is said about a message, an exception's text, without the values that are hidden in its body."""
        rules = self._rules | self._declared(message.type).secrets
        if not rules and not self._hide:
            return text
        return _without(text, _Body(rules, self._hide).read(message)[1])

    def letter(self, letter: DeadLetter) -> DeadLetter:
        """The same for a dead letter. What it says can be shown; to retry or discard it take the letter itself."""
        shown = self.shown(letter.message)
        if shown is letter.message:
            return letter
        read = read_letter(letter.delivery._replace(message=shown), letter.serializer)
        return replace(read, id=letter.id)

    def _header(self, rules: set[tuple[str, ...]], name: str, value: str, hidden: set[str]) -> str:
        if name in _STRUCTURE:
            return value
        if name not in _TEXTS and (value in hidden or _words(name) in rules):
            return HIDDEN
        return _without(value, hidden)

    def _declared(self, wire_name: str) -> _Declared:
        """What the classes of this name declare, of those that this process has imported."""
        found = self._known.get(wire_name)
        if found is None:
            classes = [cls for cls, route in every_declared() if route.type == wire_name]
            secrets = frozenset((_word(name),) for cls in classes for name in _secret_fields(cls, set()))
            keys = frozenset(key for cls in classes if (key := routing(cls).key) is not None)
            found = _Declared(secrets, keys)
            if classes:
                self._known[wire_name] = found
        return found


def read(said: str) -> Redactor:
    """What EVENTKIT_REDACT says: names, and `module:function` for what names cannot say. SettingsError: no such one."""
    words = [word.strip() for word in said.split(",")]
    return Redactor((word for word in words if ":" not in word), [_function(word) for word in words if ":" in word])


def _function(said: str) -> Hide:
    module, _, name = said.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise SettingsError(f"EVENTKIT_REDACT: {said} cannot be had ({type(error).__name__}: {error})") from error
    if not callable(found):
        raise SettingsError(f"EVENTKIT_REDACT: {said} is no function (path, value) that says what is shown")
    hide: Hide = found
    return hide


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON: a name may be in it twice."""


class _Body:
    """One body, searched for what is to be hidden."""

    def __init__(self, rules: set[tuple[str, ...]], hide: Sequence[Hide]) -> None:
        self._rules = rules
        self._hide = hide
        self._longest = max(map(len, rules), default=0)
        self._hidden: set[str] = set()
        self._changed = False

    def read(self, message: Message) -> tuple[bytes | None, set[str]]:
        """The body as it may be shown, and the values that are hidden in it."""
        if not message.body:
            return message.body, self._hidden
        try:
            shown = self._of(json.loads(message.body, object_pairs_hook=_Pairs), ())
            if not self._changed:
                return message.body, self._hidden
            return json.dumps(shown, ensure_ascii=False, default=repr).encode(errors="replace"), self._hidden
        except (ValueError, RecursionError):
            kind = message.headers.get(h.CONTENT_TYPE, "an unknown type")
            said = f"{HIDDEN} ({len(message.body)} bytes of {kind}: no JSON, which EVENTKIT_REDACT could look into)"
            return said.encode(), self._hidden

    def _of(self, value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, _Pairs):
            return {name: self._field(name, inner, (*path, name)) for name, inner in value}
        if isinstance(value, list):
            return [self._of(inner, path) for inner in value]
        return value

    def _field(self, name: str, value: Any, path: tuple[str, ...]) -> Any:
        words = tuple(_word(part) for part in path[-self._longest :])
        encoded = name == "data_base64" and len(path) == 1  # of a CloudEvent: a payload that cannot be looked into
        if encoded or any(words[-count:] in self._rules for count in range(1, len(words) + 1)):
            self._note(value)
            return HIDDEN
        for hide in self._hide:
            given = _plain(value)
            shown = _ask(hide, ".".join(path), given)
            if shown is not given and shown != given:
                self._note(value)
                return shown
        return self._of(value, path)

    def _note(self, value: Any) -> None:
        self._changed = True
        if isinstance(value, _Pairs):
            for _, inner in value:
                self._note(inner)
        elif isinstance(value, list):
            for inner in value:
                self._note(inner)
        elif value not in ("", None, True, False):
            self._hidden.add(str(value))


def _ask(hide: Hide, path: str, value: Any) -> object:
    try:
        return hide(path, value)
    except Exception:  # noqa: BLE001 whatever it cannot judge is not shown
        return HIDDEN


def _without(text: str, hidden: Iterable[str]) -> str:
    text = _INPUT.sub(f"input_value={HIDDEN}", text)
    for secret in hidden:
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, HIDDEN).replace(repr(secret)[1:-1], HIDDEN)
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {name: _plain(inner) for name, inner in value}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _words(name: str) -> tuple[str, ...]:
    return tuple(_word(part) for part in name.split("."))


def _word(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "")


def _secret_fields(cls: type[BaseModel], seen: set[type]) -> Iterator[str]:
    """The names of all fields, at any depth, that hold one of pydantic's secrets."""
    seen.add(cls)
    for name, field in cls.model_fields.items():
        inner = list(_types(field.annotation))
        if any(issubclass(kind, SecretStr | SecretBytes | Secret) for kind in inner):
            alias = field.validation_alias
            choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
            yield from {name, field.serialization_alias or name, *(one for one in choices if isinstance(one, str))}
        for kind in inner:
            if issubclass(kind, BaseModel) and kind not in seen:
                yield from _secret_fields(kind, seen)


def _types(hint: Any) -> Iterator[type]:
    """All classes that an annotation names."""
    kind = get_origin(hint) or hint
    if isinstance(kind, type):
        yield kind
    for argument in get_args(hint):
        yield from _types(argument)
    if type(hint).__name__ == "TypeAliasType":
        yield from _types(hint.__value__)
