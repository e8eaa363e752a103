"""What cannot be described is refused in one clear line."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from eventkit import Command, DeclarationError, Event, Router, Service
from eventkit.asyncapi import DocumentError, compare, document
from tests.asyncapi import samples


class Odd:
    pass


class WithCallable(Event, topic="bad"):
    act: Callable[[int], int]


class WithOdd(Event, topic="bad"):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    odd: Odd


class Described(Event, topic="bad"):
    act: Annotated[Callable[[int], int], WithJsonSchema({"type": "string"})]


class BadExample(Event, topic="bad"):
    model_config = ConfigDict(json_schema_extra={"examples": [{"amount": "many"}]})
    amount: int


class ExampleOfNoJson(Event, topic="bad"):
    model_config = ConfigDict(json_schema_extra={"examples": [{"amount": {1}}]})  # type: ignore[dict-item]
    amount: int


class Inner(BaseModel):
    hook: Callable[[], None]


def made(*events: type[Event]) -> Service:
    return Service("bad", publishes=events)


def test_what_pydantic_cannot_describe_names_class_and_field() -> None:
    for cls, field in ((WithCallable, "act"), (WithOdd, "odd")):
        with pytest.raises(DocumentError) as refused:
            document(made(cls))
        assert str(refused.value).startswith(f"{cls.__name__}.{field} cannot be described: ")
        assert "WithJsonSchema" in str(refused.value)
        assert "\n" not in str(refused.value)
    assert document(made(Described))


def test_a_reply_that_pydantic_cannot_describe() -> None:
    with pytest.raises(DeclarationError, match=r"Ask: its reply cannot be written as JSON \(.*Callable"):

        class Ask(Command[Inner], service="bad"):
            pass


def test_an_example_that_does_not_fit() -> None:
    with pytest.raises(DocumentError, match=r"BadExample\.amount: example 1 does not fit: Input should be"):
        document(made(BadExample))
    with pytest.raises(DocumentError, match="no JSON"):
        document(made(ExampleOfNoJson))


def test_what_is_no_service() -> None:
    cases: list[tuple[Any, str]] = [
        (Router(), "a Router cannot be described alone"),
        (7, "int is no Service"),
        (Service, "Service is no Service"),
    ]
    for item, expected in cases:
        with pytest.raises(DocumentError, match=expected):
            document(item)
    with pytest.raises(DocumentError, match="there is no service"):
        document()
    with pytest.raises(DocumentError, match="two different services are called 'bad'"):
        document(Service("bad"), Service("bad"))


def test_examples_and_defaults_that_do_not_fit_the_wire_are_left_out() -> None:
    class Loose(Event, topic="bad"):
        code: str = Field(default="x", examples=[{"no": "text"}], min_length=3)
        other: int = Field(default=3, examples=["three", 4])

    found = document(made(Loose))["components"]["schemas"]["Loose"]["properties"]
    assert found["code"] == {"minLength": 3, "title": "Code", "type": "string"}
    assert found["other"] == {"default": 3, "examples": [4], "title": "Other", "type": "integer"}


SAMPLE = document(*samples.services)


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield node, key
        yield from _places(value)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from([None, 7, "text", [], {}, [1], {"$ref": "#/channels"}, {"$ref": 3}, True])
)
def test_an_edited_document_is_compared_or_refused(place: int, junk: Any) -> None:
    edited = copy.deepcopy(SAMPLE)
    places = list(_places(edited))
    node, key = places[place % len(places)]
    node[key] = junk
    try:
        compare(edited, SAMPLE)
    except DocumentError as error:
        assert "\n" not in str(error)  # noqa: PT017 both are right
