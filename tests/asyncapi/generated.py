"""Generated declarations: message classes of all sorts of fields, and services that send and receive them."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, Field, HttpUrl, JsonValue, create_model

from eventkit import Command, Event, Retry, Service, Topic

_numbers = itertools.count(1)


class Size(enum.StrEnum):
    SMALL = "s"
    LARGE = "l"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    name: Annotated[str, Field(pattern="^[A-Z][a-z]*$")]


class Tree(BaseModel):
    """Holds others of its kind."""

    value: Decimal
    left: Tree | None = None
    leaves: dict[str, Tree] = {}


SIMPLE: list[Any] = [
    str, int, float, bool, Decimal, UUID, datetime, AwareDatetime, date, time, timedelta, bytes, HttpUrl, IPv4Address,
    Path, Size, JsonValue, Cat, Dog, Tree, Literal["a", 1], Literal["only"],
    Annotated[str, Field(pattern=r"^[A-Z]{3}-\d{2,4}$")],
    Annotated[str, Field(pattern=r"^(foo|bar)+x?$", max_length=20)],
    Annotated[str, Field(min_length=3, max_length=12)],
    Annotated[int, Field(ge=10, lt=20)],
    Annotated[int, Field(multiple_of=7)],
    Annotated[float, Field(gt=-1, le=0.5)],
    Annotated[Decimal, Field(ge=0, max_digits=8, decimal_places=3)],
    Annotated[Decimal, Field(gt=1000)],
    Annotated[list[int], Field(min_length=2, max_length=3)],
    Annotated[set[int], Field(min_length=2)],
    Annotated[Cat | Dog, Field(discriminator="kind")],
    Cat | Dog,
    int | str,
]  # fmt: skip


def _wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        inner.map(lambda kind: kind | None),
        inner.map(lambda kind: list[kind]),
        inner.map(lambda kind: dict[str, kind]),
        st.tuples(inner, inner).map(lambda kinds: tuple[kinds]),
        inner.map(lambda kind: tuple[kind, ...]),
    )


types = st.recursive(st.sampled_from(SIMPLE), _wider, max_leaves=3)
words = st.text("abcdefgz_0", min_size=1, max_size=8).map(lambda text: f"f{text}")
texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=40)
names = st.from_regex(r"[a-z][a-z0-9]{0,6}([.\-_][a-z0-9]{1,4})?", fullmatch=True).filter(
    lambda name: not name.endswith((".inbox", ".retry", ".dead", ".reply"))
)


@st.composite
def fields(draw: Callable[[st.SearchStrategy[Any]], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in draw(st.lists(words, max_size=5, unique=True)):
        kind = draw(types)
        extra: dict[str, Any] = {}
        if draw(st.booleans()):
            extra["description"] = draw(texts)
        if draw(st.booleans()):
            extra["alias"] = f"{word}-{draw(st.sampled_from(['x', 'Y', 'ü']))}"
        if draw(st.integers(0, 5)) == 0:
            extra["deprecated"] = True
        if draw(st.booleans()):
            kind, extra["default"] = kind | None, None
        found[word] = (kind, Field(**extra))
    return found


def _class(base: type[Any], keywords: dict[str, Any], content: dict[str, Any], doc: str, name: str) -> Any:
    return create_model(
        f"{name}{next(_numbers)}", __base__=base, __cls_kwargs__=keywords, __doc__=doc or None, **content
    )


@st.composite
def events(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    keywords: dict[str, Any] = {"topic": draw(names)}
    if draw(st.integers(0, 4)) == 0:
        keywords["topic"] = Topic(keywords["topic"], physical=draw(st.sampled_from(["old/orders", "A_B", "x:y"])))
    content = draw(fields())
    if content and draw(st.booleans()):
        keywords["key"] = draw(st.sampled_from(sorted(content)))
    if draw(st.booleans()):
        keywords["type"] = draw(st.sampled_from(["orders.placed", "com/shop:Placed", "Ünïcode", "a~b/c"])) + str(
            next(_numbers)
        )
    keywords["version"] = draw(st.integers(1, 3))
    return _class(Event, keywords, content, draw(texts), "Event")


@st.composite
def services(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Service:
    more = draw(st.lists(events(), max_size=1))
    name = f"{draw(names)}-{next(_numbers)}"
    service = Service(name, retry=Retry(attempts=draw(st.integers(1, 9))), publishes=more)
    replies = st.one_of(st.none(), types)
    for number in range(draw(st.integers(1, 3))):
        returned = draw(st.lists(events(), max_size=2))
        annotation: Any = (
            None if not returned else returned[0] if len(returned) == 1 else list[returned[0] | returned[1]]
        )
        if draw(st.booleans()):
            accepted, group = draw(events()), draw(st.sampled_from([None, "audit"]))
            if draw(st.booleans()):
                accepted, group = accepted | draw(events()), None
        else:
            reply, group = draw(replies), None
            base = Command if reply is None else Command[reply]
            accepted = _class(base, {"service": service.name}, draw(fields()), draw(texts), "Command")
            annotation = reply if reply is not None else annotation
        _handle(service, f"handler{number}", accepted, annotation, group)
    return service


def _handle(service: Service, name: str, accepted: Any, returned: Any, group: str | None) -> None:
    async def handler(message: Any) -> Any: ...

    handler.__annotations__ = {"message": accepted, "return": returned}
    handler.__name__ = handler.__qualname__ = name
    service.handler(handler, group=group)
