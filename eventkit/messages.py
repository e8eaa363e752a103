"""Event, Command and Topic: what users declare, and the routing that their classes carry."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, dataclass_transform

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar

from eventkit import sayable
from eventkit.adapter import Address
from eventkit.errors import DeclarationError
from eventkit.faithful import Faith
from eventkit.names import logical

if TYPE_CHECKING:
    from eventkit.wire import Serializer

R = TypeVar("R", default=None, covariant=True)
E = TypeVar("E", bound="Event")
Data: TypeAlias = dict[str, Any]
Upcaster: TypeAlias = Callable[[Data], Data]

_FIRST_VERSION = 1


@dataclass(frozen=True, slots=True)
class Topic:
    """A named channel of events.

    Needed only where a name is not enough: `Topic("orders", physical="legacy.orders", default=OrderPlaced)` reads and
    writes an existing channel as it is, without the namespace, and takes messages on it that do not say their type for
    `OrderPlaced`. Give it to a handler: `@service.handler(topic=...)`; or, with the class's wire name for `default`,
    to the class itself: `class OrderPlaced(Event, topic=Topic("orders", default="OrderPlaced"))`.
    """

    name: str
    physical: str | None = None
    """The broker's own name. None: made from the name and the namespace."""
    default: type[Event] | str | None = None
    """The class of messages that carry no type, or its wire name. None: they are skipped, as unhandled."""

    def __post_init__(self) -> None:
        logical(self.name, f"Topic({self.name!r})")
        if not isinstance(self.default, str | None) and not (
            isinstance(self.default, type) and issubclass(self.default, Event)
        ):
            raise DeclarationError(f"Topic({self.name!r}): default={self.default!r} is no Event class")


@dataclass(frozen=True, slots=True)
class Routing:
    """Where the messages of a class go, and how they are told apart. Read it with `routing(cls)`."""

    type: str
    """The wire name."""
    version: int
    key: str | None
    """The field whose value orders messages; None: no order is asked for."""
    topic: Topic | None
    """Events only."""
    service: str | None
    """Commands only: the owner."""
    reply: object = None
    """Commands only: what the handler returns, as a type; None: there is no value in the reply."""
    serializer: Serializer | None = None
    """How bodies of this class are written; None: the bus's."""
    upcasters: dict[int, Upcaster] = field(default_factory=dict)
    """By the version each starts from."""
    address: Address = field(init=False)
    """The destination, as adapters take it."""

    def __post_init__(self) -> None:
        if self.topic is not None:
            address = Address("topic", self.topic.name, self.topic.physical)
        else:
            assert self.service is not None
            address = Address("inbox", self.service)
        object.__setattr__(self, "address", address)  # made once: each message that is sent asks for it


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    __eventkit_routing__: ClassVar[Routing | None] = None
    __eventkit_own__: ClassVar[Mapping[str, object]] = {}
    __eventkit_faith__: ClassVar[Faith | None] = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        # Class keywords are ours; pydantic's own (frozen=..., extra=...) go on to it.
        super().__init_subclass__(
            **{word: value for word, value in keywords.items() if word in ConfigDict.__annotations__}
        )

    @classmethod
    def __pydantic_init_subclass__(cls, **keywords: Any) -> None:
        super().__pydantic_init_subclass__(**keywords)
        if _Message not in cls.__bases__:  # Event and Command themselves say nothing
            declare(cls, keywords)


@dataclass_transform(kw_only_default=True)
class Event(_Message):
    """A fact, in the past tense. Frozen. Published to a topic; any number of services react, including none.

    ```python
    class OrderPlaced(Event, topic="orders", key="order_id"):
        order_id: str
    ```

    Class keywords: `topic` (a name or a `Topic`; required), `key` (the field that orders messages), `type` (the wire
    name; by default the class's name), `version` (from 1), `serializer`. A subclass inherits all but `type`. An event
    class without a topic is a base for others and cannot be published.
    """

    @classmethod
    def upcast(cls, *, from_version: int) -> Callable[[Upcaster], Upcaster]:
        """Decorates a function that turns the data of `from_version` into that of the next version.

        It takes and gives a dict. Messages of older versions go through each step up to the class's `version`.
        """
        return _upcast(cls, from_version)


@dataclass_transform(kw_only_default=True)
class Command(_Message, Generic[R]):
    """A request to act, in the imperative. Frozen. Sent to the one service that owns it.

    ```python
    class QuoteShipping(Command[Quote], service="shipping"):
        postcode: str
    ```

    `Command[R]`: what its handler returns is the reply, `R`; without `R` there is no value in the reply. Class
    keywords: `service` (the owner; required), `key`, `type`, `version`, `serializer`.
    """

    @classmethod
    def upcast(cls, *, from_version: int) -> Callable[[Upcaster], Upcaster]:
        """Decorates a function that turns the data of `from_version` into that of the next version."""
        return _upcast(cls, from_version)


_OWN: Mapping[str, frozenset[str]] = {
    "event": frozenset({"topic", "key", "type", "version", "serializer"}),
    "command": frozenset({"service", "key", "type", "version", "serializer"}),
}


def routing(cls: type[BaseModel]) -> Routing:
    """The routing of a message class that can be published or sent. DeclarationError if it cannot."""
    found = getattr(cls, "__eventkit_routing__", None)
    if isinstance(found, Routing):
        return found
    if not issubclass(cls, _Message):
        raise DeclarationError(f"{cls.__name__} is neither an Event nor a Command")
    if "[" in cls.__name__ or Generic in cls.__bases__:
        raise DeclarationError(
            f"{cls.__name__} has no wire name: derive a class with a name of its own from it, its types filled in"
        )
    wanted = 'topic="..."' if issubclass(cls, Event) else 'service="..."'
    raise DeclarationError(f"{cls.__name__} says no destination: declare it as class {cls.__name__}(..., {wanted})")


def declare(cls: type[_Message], keywords: Mapping[str, Any]) -> None:
    """Read and check the class keywords of a message class."""
    cls.__eventkit_routing__ = None
    cls.__eventkit_faith__ = None
    if issubclass(cls, Event) and issubclass(cls, Command):
        raise DeclarationError(f"{cls.__name__} is an Event and a Command at once: make it one of them")
    kind = "event" if issubclass(cls, Event) else "command"
    parametrised = bool(cls.__pydantic_generic_metadata__["origin"]) and not keywords
    own = {word: value for word, value in keywords.items() if word not in ConfigDict.__annotations__}
    _check_keywords(cls, kind, own)
    inherited = {word: value for word, value in _inherited(cls).items() if word != "type"}
    merged = {**inherited, **own}
    cls.__eventkit_own__ = merged
    destination = "topic" if kind == "event" else "service"
    if parametrised or merged.get(destination) is None:
        return
    if Generic in cls.__bases__:
        return  # still open: only its parametrised form can be sent
    cls.__eventkit_routing__ = _routing(cls, kind, merged, own)


def _inherited(cls: type[_Message]) -> Mapping[str, object]:
    for base in cls.__mro__[1:]:
        found = base.__dict__.get("__eventkit_own__")
        if found:
            return typing.cast("Mapping[str, object]", found)
    return {}


def _check_keywords(cls: type[_Message], kind: str, own: Mapping[str, object]) -> None:
    legal = _OWN[kind]
    for word in own:
        if word in legal:
            continue
        other = _OWN["command" if kind == "event" else "event"]
        if word in other:
            raise DeclarationError(
                f"{cls.__name__}: {word}= belongs on {'a command' if kind == 'event' else 'an event'}"
            )
        near = difflib.get_close_matches(word, sorted(legal), n=1)
        hint = f"; did you mean {near[0]}=?" if near else ""
        raise DeclarationError(
            f"{cls.__name__}: unknown class keyword {word}={hint} (legal: {', '.join(sorted(legal))})"
        )
    if cls.model_config.get("frozen") is not True:
        raise DeclarationError(f"{cls.__name__}: messages are frozen; leave frozen=False out")


def _routing(cls: type[_Message], kind: str, merged: Mapping[str, Any], own: Mapping[str, Any]) -> Routing:
    name = cls.__name__
    key = merged.get("key")
    if key is not None and key not in cls.model_fields:
        raise DeclarationError(
            f"{name}: key={key!r} is no field of it (fields: {', '.join(cls.model_fields) or 'none'})"
        )
    version = merged.get("version", _FIRST_VERSION)
    if not isinstance(version, int) or isinstance(version, bool) or version < _FIRST_VERSION:
        raise DeclarationError(f"{name}: version={version!r} is no whole number from 1")
    wire_name = own.get("type", name)
    if not isinstance(wire_name, str) or not wire_name or not wire_name.isprintable() or " " in wire_name:
        raise DeclarationError(f"{name}: type={wire_name!r} must be printable text without spaces")
    topic = merged.get("topic")
    if kind == "event" and not isinstance(topic, Topic):
        topic = Topic(logical(topic, f"{name}: topic"))
    service = logical(merged["service"], f"{name}: service") if kind == "command" else None
    reply = _reply(cls) if kind == "command" else None
    if merged.get("serializer") is None:
        sayable.check_declared(cls)
        if reply is not None:
            sayable.check_reply(reply, f"{name}: its reply")
    return Routing(
        type=wire_name,
        version=version,
        key=key,
        topic=topic,
        service=service,
        reply=reply,
        serializer=merged.get("serializer"),
    )


def _reply(cls: type[_Message]) -> object:
    known: dict[object, object] = {}
    for base in cls.__mro__:
        meta = base.__dict__.get("__pydantic_generic_metadata__")
        if not meta or meta["origin"] is None:
            continue
        filled = [_fill(argument, known) for argument in meta["args"]]
        if meta["origin"] is Command:
            return None if filled[0] is type(None) else filled[0]
        known.update(zip(meta["origin"].__pydantic_generic_metadata__["parameters"], filled, strict=True))
    return None


def _fill(hint: Any, known: Mapping[object, object]) -> object:
    """A type with its type variables filled in."""
    if hint in known:
        return known[hint]
    parameters = getattr(hint, "__parameters__", ())
    return hint[tuple(known.get(parameter, parameter) for parameter in parameters)] if parameters else hint


def _upcast(cls: type[_Message], from_version: int) -> Callable[[Upcaster], Upcaster]:
    route = routing(cls)

    def register(function: Upcaster) -> Upcaster:
        if not _FIRST_VERSION <= from_version < route.version:
            raise DeclarationError(
                f"{cls.__name__}.upcast(from_version={from_version}): the class is version {route.version}, "
                f"so only older versions can be upcast"
            )
        route.upcasters[from_version] = function
        return function

    return register


class Undeclared(Event, extra="allow"):
    """An event of a type that no class here declares, as a handler of all of a topic gets it.

    Its fields are the JSON's; `Context.type` says its wire name.
    """


def declared(topic: str) -> dict[str, list[type[Event]]]:
    """The event classes of this process that go to a topic, by their wire name."""
    found: dict[str, list[type[Event]]] = {}
    for cls, route in every_declared():
        if issubclass(cls, Event) and route.topic and route.topic.name == topic:
            found.setdefault(route.type, []).append(cls)
    return found


def every_declared() -> Iterator[tuple[type[Event | Command[Any]], Routing]]:
    """All message classes that this process declares, each once, with where its messages go."""
    pending: list[type[Event | Command[Any]]] = [Event, Command]
    seen: set[type] = set()
    while pending:
        cls = pending.pop()
        if cls not in seen:
            seen.add(cls)
            pending.extend(type.__subclasses__(cls))
            route = cls.__dict__.get("__eventkit_routing__")
            if isinstance(route, Routing):
                yield cls, route


def nearest(classes: Sequence[type[Event]], module: str) -> type[Event] | None:
    """The only one; or, where services that share a process declare a message each for themselves, the one of this
    module, or else of its package. None: there is none, or that does not tell."""
    for place in (module, module.rpartition(".")[0]):
        if len(classes) > 1:
            classes = [cls for cls in classes if f"{cls.__module__}.".startswith(f"{place}.")] or classes
    return classes[0] if len(classes) == 1 else None
