"""What is written reads back equal, or is refused: at declaration where it can be known, else when it is written."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from types import new_class
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    Secret,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    field_serializer,
)

from eventkit import Command, DeclarationError, Event, InvalidMessage
from eventkit.wire import Envelope, decode, encode

ABOUT = Envelope(source="s")
Grams = NewType("Grams", float)


class Base(BaseModel):
    a: int = 0


class Derived(Base):
    b: int = 0


class Colour(Enum):
    RED = "red"


class Inner(BaseModel):
    ratio: float = 0.0
    base: Base = Base()
    again: Inner | None = None


class Plain(Event, topic="faithful", key="name"):
    """Of types that JSON can say."""

    name: str = ""
    ratio: float = 0.5
    grams: Grams = Grams(1.0)
    maybe: float | None = None
    inner: Inner = Inner()
    many: list[Inner] = Field(default_factory=list)
    ratios: tuple[float, ...] = ()
    by_name: dict[str, Base] = Field(default_factory=dict)
    noted: Annotated[float, Field(ge=-math.inf)] = 0.0
    at: datetime = datetime(2025, 1, 1, tzinfo=UTC)
    day: date = date(2025, 1, 1)
    took: timedelta = timedelta(0)
    id: UUID = UUID(int=0)
    price: Decimal = Decimal(0)
    colour: Colour = Colour.RED
    kind: Literal["a", 1] = 1
    raw: bytes = b""
    path: PurePosixPath = PurePosixPath("/")
    address: ipaddress.IPv4Address = ipaddress.IPv4Address("127.0.0.1")


class Open(Event, topic="faithful"):
    """Of types of which only reading back can tell."""

    anything: Any = None
    either: int | str | datetime = 0
    some: Sequence[int] = Field(default_factory=list)
    duck: SerializeAsAny[Base] = Base()
    pair: tuple[int, str] = (0, "")


def back(message: Any) -> Any:
    return decode(encode(message, ABOUT), type(message))


GOOD: list[Any] = [
    Plain(),
    Plain(ratio=-0.0, maybe=1e308, many=[Inner(again=Inner(ratio=2.0))], ratios=(1.0, 2.0), by_name={"x": Base(a=1)}),
    Plain(name="NaN null Infinity", raw="ü".encode(), price=Decimal("1e-30")),
    Open(anything={"a": [1, "x", None, True, 1.5]}, either="text", some=[1, 2]),
    Open(anything=[{"deep": {}}], either=7, some=[]),
]


@pytest.mark.parametrize("message", GOOD)
def test_what_json_can_say_reads_back_equal(message: Any) -> None:
    assert back(message) == message


@pytest.mark.parametrize(
    ("message", "where"),
    [
        (Plain(ratio=math.nan), r"Plain\.ratio is nan"),
        (Plain(ratio=-math.inf), r"Plain\.ratio is -inf"),
        (Plain(grams=Grams(math.nan)), r"Plain\.grams is nan"),
        (Plain(maybe=math.inf), r"Plain\.maybe is inf"),
        (Plain(noted=math.inf), r"Plain\.noted is inf"),
        (Plain(ratios=(1.0, math.nan)), r"Plain\.ratios\[1\] is nan"),
        (Plain(inner=Inner(ratio=math.nan)), r"Plain\.inner\.ratio is nan"),
        (Plain(many=[Inner(), Inner(again=Inner(ratio=math.nan))]), r"Plain\.many\[1\]\.again\.ratio is nan"),
        (Plain(inner=Inner(base=Derived(a=1, b=2))), r"Plain\.inner\.base is a Derived, of which only what Base"),
        (Plain(by_name={"x": Derived()}), r"Plain\.by_name\['x'\] is a Derived"),
        (Open(anything=math.nan), r"Open\.anything would not read back as it is, from float to NoneType"),
        (Open(anything=datetime(2025, 1, 1, tzinfo=UTC)), r"Open\.anything .*, from datetime to str"),
        (Open(anything={1: 2}), r"Open\.anything would not read back as it is"),
        (Open(anything={1, 2}), r"Open\.anything would not read back as it is, from set to list"),
        (Open(duck=Derived(b=1)), r"Open\.duck would not read back as it is, from Derived to Base"),
    ],
)
def test_what_json_would_change_is_refused(message: Any, where: str) -> None:
    with pytest.raises(InvalidMessage, match=where):
        encode(message, ABOUT)


def test_a_tuple_may_come_back_as_a_list_where_both_are_allowed() -> None:
    message = Open(anything={"a": (1, [2, (3,)])}, some=(1, 2))
    assert back(message) == Open(anything={"a": [1, [2, [3]]]}, some=[1, 2])


@given(st.floats() | st.text() | st.binary() | st.datetimes() | st.integers() | st.lists(st.none() | st.floats()))
def test_whatever_is_given_comes_back_equal_or_is_refused(value: Any) -> None:
    for message in (Open(anything=value), Plain(ratio=value) if isinstance(value, float) else Plain()):
        try:
            encoded = encode(message, ABOUT)
        except InvalidMessage:
            continue
        assert decode(encoded, type(message)) == message


def test_no_value_is_shown_where_it_may_be_secret() -> None:
    with pytest.raises(InvalidMessage) as refused:
        encode(Open(anything={"password": "hunter2", "pair": {1, 2}}), ABOUT)
    assert "hunter2" not in str(refused.value)


def declare(base: Any = Event, **fields: Any) -> type[Any]:
    """A message class of these fields."""

    def fill(namespace: dict[str, Any]) -> None:
        namespace["__annotations__"] = {name: annotation for name, (annotation, _) in fields.items()}
        namespace |= {name: default for name, (_, default) in fields.items() if default is not ...}
        namespace["__module__"] = __name__

    keywords = {"topic": "faithful"} if base is Event else {"service": "faithful"}
    made: type[Any] = new_class("Declared", (base,), keywords, fill)
    return made


class Hiding(BaseModel):
    key: SecretStr


class Lossy(BaseModel):
    a: int = Field(default=0, exclude=True)


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (SecretStr, r"Declared\.it is a secret"),
        (SecretBytes | None, r"Declared\.it is a secret"),
        (Secret[int], r"Declared\.it is a secret"),
        (dict[str, list[SecretStr]], r"Declared\.it is a secret"),
        (Annotated[SecretStr, Field(min_length=1)], r"Declared\.it is a secret"),
        (list[Hiding], r"Declared\.it\.key is a secret"),
        (Lossy, r"Declared\.it\.a has exclude=True"),
    ],
)
def test_secrets_and_what_is_left_out_are_refused_at_declaration(annotation: Any, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        declare(it=(annotation, ...))


@pytest.mark.parametrize("reply", [SecretStr, list[Hiding], Callable[[], int], object.__class__])
def test_so_are_replies(reply: Any) -> None:
    with pytest.raises(DeclarationError, match="Declared: its reply"):
        declare(Command[reply])


def test_a_secret_may_say_how_it_is_written() -> None:
    class Told(Event, topic="faithful"):
        key: SecretStr
        other: Annotated[SecretStr, PlainSerializer(lambda secret: secret.get_secret_value())]

        @field_serializer("key", when_used="json")
        def _tell(self, key: SecretStr) -> str:
            return key.get_secret_value()

    told = Told(key=SecretStr("a"), other=SecretStr("b"))
    assert back(told) == told

    class Muddled(Event, topic="faithful"):
        key: SecretStr

        @field_serializer("key")
        def _tell(self, key: SecretStr) -> str:
            return "*"

    with pytest.raises(InvalidMessage, match=r"Muddled\.key would not read back"):
        encode(Muddled(key=SecretStr("a")), ABOUT)


@pytest.mark.parametrize(
    ("field", "fits"),
    [
        (Field(alias="a"), True),
        (Field(serialization_alias="a"), False),
        (Field(validation_alias="a"), False),
        (Field(serialization_alias="a", validation_alias=AliasChoices("b", "a")), True),
        (Field(serialization_alias="a", validation_alias=AliasChoices("b", "c")), False),
    ],
)
def test_a_field_has_one_name_on_the_wire(field: Any, fits: bool) -> None:
    if fits:
        cls = declare(it=(int, field))
        message = cls.model_validate({"a": 7})
        assert back(message) == message
    else:
        with pytest.raises(DeclarationError, match=r"Declared\.it is written as '\w+', but read as '"):
            declare(it=(int, field))


def test_a_class_that_is_finished_later_is_asked_when_it_is_first_written() -> None:
    class Early(Event, topic="faithful"):
        later: Later = Field(default_factory=lambda: Later(ratio=1.0))

    global Later

    class Later(BaseModel):
        ratio: float

    class Hidden(Event, topic="faithful"):
        hidden: Hide = Field(default_factory=lambda: Hide(key=SecretStr("")))

    global Hide

    class Hide(BaseModel):
        key: SecretStr

    for cls in (Early, Hidden):
        cls.model_rebuild()
    with pytest.raises(InvalidMessage, match=r"Hidden\.hidden\.key is a secret"):
        encode(Hidden(), ABOUT)
    assert back(Early()) == Early()
    with pytest.raises(InvalidMessage, match=r"Early\.later\.ratio is nan"):
        encode(Early(later=Later(ratio=math.nan)), ABOUT)


def test_a_subclass_is_asked_for_itself() -> None:
    class Parent(Event, topic="faithful"):
        a: int = 0

    encode(Parent(), ABOUT)

    class Child(Parent):
        model_config = ConfigDict(extra="allow")
        ratio: float = 0.0

    with pytest.raises(InvalidMessage, match=r"Child\.ratio"):
        encode(Child(ratio=math.nan), ABOUT)
