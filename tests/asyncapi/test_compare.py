"""The check: each class of change, and whom it breaks."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from eventkit import Command, Event, Retry, Service, Topic
from eventkit.asyncapi import RULES, compare, document
from eventkit.asyncapi.changes import Change
from eventkit.asyncapi.declared import gather
from tests.asyncapi.generated import SIMPLE, types

_numbers = itertools.count(1)


def sent(namespace: str = "", keywords: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The document of a service that sends the event `Happened`."""
    words = {"topic": "things", "type": "Happened", **(keywords or {})}
    event = create_model(f"Happened{next(_numbers)}", __base__=Event, __cls_kwargs__=words, **fields)
    service = Service("maker", publishes=[event])
    return _untitled(document(service, namespace=namespace))


def handled(reply: Any = None, keywords: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The document of a service that handles the command `Act`."""
    base = Command if reply is None else Command[reply]
    words = {"service": "maker", "type": "Act", **(keywords or {})}
    command = create_model(f"Act{next(_numbers)}", __base__=base, __cls_kwargs__=words, **fields)
    service = Service("maker")

    async def act(command: Any) -> Any: ...

    act.__annotations__ = {"command": command, "return": reply}
    service.handler(act)
    return _untitled(document(service))


def _untitled(found: dict[str, Any]) -> dict[str, Any]:
    """Without what the made-up class names bring in."""
    text = json.dumps(found)
    for cls in ("Happened", "Act"):
        for number in range(1, next(_numbers)):
            text = text.replace(f'{cls}{number}"', f'{cls}_"')
    made: dict[str, Any] = json.loads(text)
    return made


def found(old: dict[str, Any], new: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {
        (change.rule, change.where.partition("/")[2], ",".join(sorted(change.breaks)))
        for change in compare(old, new)
        if change.rule != "text-changed"
    }


class Old(BaseModel):
    a: int
    b: str = ""


class New(BaseModel):
    a: int
    c: int


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int


class StrictMore(Strict):
    z: int | None = None


class Knot(BaseModel):
    next: Knot | None = None
    value: int


class KnotOfText(BaseModel):
    model_config = ConfigDict(title="Knot")
    next: KnotOfText | None = None
    value: str


AMOUNT = Annotated[Decimal, Field(ge=0)]
POSITIVE = Annotated[Decimal, Field(ge=1)]

FIELDS: list[tuple[str, Any, Any, list[tuple[str, str, str]], list[tuple[str, str, str]]]] = [
    # what, before, after, (rule, field, breaks) in an event, the same in a command
    ("optional field added", {}, {"x": (int, 0)}, [("field-added", "x", "")], [("field-added", "x", "")]),
    (
        "required field added",
        {},
        {"x": (int, ...)},
        [("field-added-required", "x", "producers")],
        [("field-added-required", "x", "producers")],
    ),
    (
        "field removed",
        {"x": (int, ...)},
        {},
        [("field-removed", "x", "consumers")],
        [("field-removed", "x", "producers")],
    ),
    (
        "made required",
        {"x": (int, 0)},
        {"x": (int, ...)},
        [("field-made-required", "x", "producers")],
        [("field-made-required", "x", "producers")],
    ),
    (
        "made optional",
        {"x": (int, ...)},
        {"x": (int, 0)},
        [("field-made-optional", "x", "consumers")],
        [("field-made-optional", "x", "")],
    ),
    ("default", {"x": (int, 0)}, {"x": (int, 1)}, [("default-changed", "x", "")], [("default-changed", "x", "")]),
    (
        "null possible",
        {"x": (str, ...)},
        {"x": (str | None, ...)},
        [("type-widened", "x", "consumers")],
        [("type-widened", "x", "")],
    ),
    (
        "null impossible",
        {"x": (str | None, ...)},
        {"x": (str, ...)},
        [("type-narrowed", "x", "producers")],
        [("type-narrowed", "x", "producers")],
    ),
    (
        "other type",
        {"x": (int, ...)},
        {"x": (str, ...)},
        [("type-changed", "x", "consumers,producers")],
        [("type-changed", "x", "producers")],
    ),
    (
        "whole to broken numbers",
        {"x": (int, ...)},
        {"x": (float, ...)},
        [("type-widened", "x", "consumers")],
        [("type-widened", "x", "")],
    ),
    (
        "value gone and value new",
        {"x": (Literal["a", "b"], ...)},
        {"x": (Literal["a", "c"], ...)},
        [("enum-value-removed", "x", "producers"), ("enum-value-added", "x", "consumers")],
        [("enum-value-removed", "x", "producers"), ("enum-value-added", "x", "")],
    ),
    (
        "limit of a Decimal",
        {"x": (AMOUNT, ...)},
        {"x": (POSITIVE, ...)},
        [("constraint-tightened", "x", "producers")],
        [("constraint-tightened", "x", "producers")],
    ),
    (
        "longer text",
        {"x": (Annotated[str, Field(max_length=5)], ...)},
        {"x": (Annotated[str, Field(max_length=9)], ...)},
        [("constraint-loosened", "x", "consumers")],
        [("constraint-loosened", "x", "")],
    ),
    (
        "pattern",
        {"x": (Annotated[str, Field(pattern="^a$")], ...)},
        {"x": (Annotated[str, Field(pattern="^b$")], ...)},
        [("format-changed", "x", "consumers,producers")],
        [("format-changed", "x", "producers")],
    ),
    (
        "inside a list of models",
        {"x": (list[Old], ...)},
        {"x": (list[New], ...)},
        [("field-removed", "x[].b", "consumers"), ("field-added-required", "x[].c", "producers")],
        [("field-removed", "x[].b", "producers"), ("field-added-required", "x[].c", "producers")],
    ),
    (
        "inside a mapping",
        {"x": (dict[str, int], ...)},
        {"x": (dict[str, str], ...)},
        [("type-changed", "x.*", "consumers,producers")],
        [("type-changed", "x.*", "producers")],
    ),
    (
        "a model that holds itself",
        {"x": (Knot, ...)},
        {"x": (KnotOfText, ...)},
        [("type-changed", "x.value", "consumers,producers")],
        [("type-changed", "x.value", "producers")],
    ),
    (
        "unknown fields refused",
        {"x": (Old, ...)},
        {"x": (Strict, ...)},
        [("field-removed-refused", "x.b", "consumers,producers"), ("extra-refused", "x", "producers")],
        [("field-removed-refused", "x.b", "producers"), ("extra-refused", "x", "producers")],
    ),
    (
        "new where unknown fields are refused",
        {"x": (Strict, ...)},
        {"x": (StrictMore, ...)},
        [("field-added-refused", "x.z", "consumers"), ("field-added", "x.z", "")],
        [("field-added-refused", "x.z", ""), ("field-added", "x.z", "")],
    ),
    (
        "a place of a tuple",
        {"x": (tuple[int, str], ...)},
        {"x": (tuple[int, int], ...)},
        [("type-changed", "x[1]", "consumers,producers")],
        [("type-changed", "x[1]", "producers")],
    ),
    (
        "alternatives",
        {"x": (int | Old, ...)},
        {"x": (int | New, ...)},
        [("type-narrowed", "x", "producers"), ("type-widened", "x", "consumers")],
        [("type-narrowed", "x", "producers"), ("type-widened", "x", "")],
    ),
    (
        "anything to something",
        {"x": (Any, ...)},
        {"x": (int, ...)},
        [("type-narrowed", "x", "producers")],
        [("type-narrowed", "x", "producers")],
    ),
]


@pytest.mark.parametrize(
    ("before", "after", "event", "command"), [row[1:] for row in FIELDS], ids=[r[0] for r in FIELDS]
)
def test_fields(before: Any, after: Any, event: Any, command: Any) -> None:
    assert found(sent(**before), sent(**after)) == {(r, f"Happened/{at}", who) for r, at, who in event}
    assert found(handled(**before), handled(**after)) == {(r, f"Act/{at}", who) for r, at, who in command}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"version": 1}, {"version": 2}, {("version-raised", "Happened", "consumers")}),
        ({"version": 2}, {"version": 1}, {("version-lowered", "Happened", "producers")}),
        ({"key": "x"}, {"key": "y"}, {("key-changed", "Happened", "consumers")}),
        ({"key": "x"}, {}, {("key-changed", "Happened", "consumers")}),
        ({}, {"key": "x"}, {("key-added", "Happened", "")}),
        ({}, {"type": "Occurred"}, {("type-name-changed", "Happened", "consumers,producers")}),
        ({}, {"topic": "others"}, {("address-changed", "Happened", "consumers,producers"), ("channel-added", "", "")}),
        (
            {},
            {"topic": Topic("things", physical="old")},
            {("address-changed", "", "consumers,producers")},
        ),
    ],
)
def test_routing(before: Any, after: Any, expected: set[tuple[str, str, str]]) -> None:
    fields = {"x": (int, ...), "y": (int, ...)}
    assert found(sent(keywords=before, **fields), sent(keywords=after, **fields)) == expected


def test_a_namespace_moves_everything() -> None:
    assert found(sent("one"), sent("two")) == {("address-changed", "", "consumers,producers")}


def test_upcasting_spares_producers() -> None:
    def made(version: int, upcast: bool, **fields: Any) -> dict[str, Any]:
        words = {"topic": "things", "type": "Happened", "version": version}
        event = create_model(f"Happened{next(_numbers)}", __base__=Event, __cls_kwargs__=words, **fields)
        if upcast:
            event.upcast(from_version=1)(dict)
        service = Service("maker", publishes=[event])
        return document(service)

    old = made(1, False)
    raised = ("version-raised", "Happened", "consumers")
    assert found(old, made(2, True, x=(int, ...))) == {raised, ("field-added-required", "Happened/x", "")}
    assert found(old, made(2, False, x=(int, ...))) == {raised, ("field-added-required", "Happened/x", "producers")}


def test_replies_are_read_by_who_sent_the_command() -> None:
    assert found(handled(Old), handled(New)) == {
        ("field-removed", "Act/reply/b", "producers"),
        ("field-added-required", "Act/reply/c", ""),
    }
    assert found(handled(Old), handled()) == {("reply-removed", "Act/reply", "producers")}
    assert found(handled(), handled(Old)) == {("reply-added", "Act/reply", "")}
    assert found(handled(int), handled(int | None)) == {("type-widened", "Act/reply", "producers")}


class Sent(Event, topic="things"):
    a: int


class Heard(Event, topic="things"):
    """One text."""

    b: int = Field(description="one")


class Asked(Command, service="maker"):
    c: int


def test_messages_come_and_go() -> None:
    def made(*handlers: Callable[..., Any], publishing: tuple[type[Event], ...] = ()) -> dict[str, Any]:
        service = Service("maker", publishes=publishing)
        for handler in handlers:
            service.handler(handler)
        return document(service)

    async def heard(event: Heard) -> None: ...
    async def asked(command: Asked) -> None: ...
    async def asks(event: Heard) -> Asked: ...

    nothing = made()
    assert found(made(publishing=(Sent,)), nothing) == {("message-removed", "Sent", "consumers")}
    assert found(made(heard), nothing) == {("message-unhandled", "Heard", "")}
    assert found(made(asked), nothing) == {("message-removed", "Asked", "producers")}
    assert found(made(heard, publishing=(Heard,)), made(heard)) == {("message-unsent", "Heard", "consumers")}
    assert found(made(asked, asks), made(asks)) == {("message-unhandled", "Asked", "producers")}
    assert found(made(asked, asks), made(asked, heard)) == {("message-unsent", "Asked", "")}
    assert ("message-added", "Sent", "") in found(nothing, made(publishing=(Sent,)))


def test_policies_and_texts_are_compatible() -> None:
    def made(**words: Any) -> dict[str, Any]:
        service = Service("maker", **words)

        @service.handler
        async def heard(event: Heard) -> None: ...

        return document(service)

    one = made()
    [change] = compare(one, made(retry=Retry(attempts=9)))
    assert (change.rule, change.where, change.breaks) == ("policy-changed", "things/maker.heard", frozenset())
    other = json.loads(json.dumps(one).replace("One text", "Another"))
    assert {change.rule for change in compare(one, other)} == {"text-changed"}
    assert not any(change.breaks for change in compare(one, other))
    assert {change.rule for change in compare(one, {**one, "info": {**one["info"], "title": "x"}})} == {
        "document-changed"
    }


def test_servers_and_bindings_are_no_change() -> None:
    service = Service("maker")

    @service.handler
    async def heard(event: Heard) -> None: ...

    for broker in ("kafka", "rabbit", "nats", "redis"):
        assert compare(document(service), document(service, broker=broker, url="mq://u:p@h", version="3.1.0")) == []


def test_every_rule_is_documented_and_used() -> None:
    text = (Path(__file__).parents[2] / "docs/asyncapi.md").read_text(encoding="utf-8")
    table = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    assert set(RULES) <= set(table)
    for name, rule in RULES.items():
        cells = [cell.strip() for cell in table[name].strip("|").split("|")]
        wanted = [", ".join(sorted(sides)) or "-" for sides in (rule.event, rule.command, rule.reply)]
        assert cells[2:] == wanted, name


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_old_code_cannot_read_is_said_to_break_it(data: st.DataObject) -> None:
    """Values are made of one class and read by the other: where that fails, a break must have been found."""
    one, other = data.draw(_models()), data.draw(_models())
    changes = compare(_event_document(one), _event_document(other))
    for writer, reader, side in ((other, one, "consumers"), (one, other, "producers")):
        for wire in _written(data, writer):
            if not _reads(reader, wire):
                assert any(side in change.breaks for change in changes), (wire, [change.id for change in changes])


def _written(data: st.DataObject, cls: type[Event]) -> Iterator[str]:
    """As Hypothesis makes one, where it can, and as our examples have it."""
    with contextlib.suppress(Exception):  # it cannot make some types that pydantic takes
        yield data.draw(st.builds(cls)).model_dump_json(by_alias=True)
    message = _event_document(cls)["components"]["messages"]["Happened"]
    for example in message.get("examples", ()):
        yield json.dumps(example["payload"])


def _reads(cls: type[BaseModel], wire: str) -> bool:
    try:
        cls.model_validate_json(wire)
    except ValidationError:
        return False
    return True


def alike() -> st.SearchStrategy[Any]:
    """Types that differ a little from each other."""
    small = st.integers(0, 4)
    bounds = st.fixed_dictionaries({}, optional={"ge": small, "lt": st.integers(5, 9)})
    lengths = st.fixed_dictionaries({}, optional={"min_length": small, "max_length": st.integers(5, 9)})
    values = st.lists(st.sampled_from(["a", "b", 1, 2, None]), min_size=1, max_size=3, unique=True)
    inner = st.one_of(
        st.builds(
            lambda kind, limits: Annotated[kind, Field(**limits)], st.sampled_from([int, float, Decimal]), bounds
        ),
        lengths.map(lambda limits: Annotated[str, Field(**limits)]),
        values.map(lambda chosen: Literal[tuple(chosen)]),
        st.builds(_inner, st.dictionaries(st.sampled_from("pq"), st.booleans()), st.sampled_from(["ignore", "forbid"])),
    )
    return st.one_of(
        inner,
        inner.map(lambda kind: kind | None),
        st.builds(lambda kind, limits: Annotated[list[kind], Field(**limits)], inner, lengths),
        inner.map(lambda kind: dict[str, kind]),
        st.builds(lambda one, other: one | other, inner, inner),
    )


def _inner(fields: dict[str, bool], extra: Literal["ignore", "forbid"]) -> type[BaseModel]:
    content: dict[str, Any] = {name: (int, ... if needed else 0) for name, needed in fields.items()}
    return create_model("Inner", __config__=ConfigDict(extra=extra), **content)


@st.composite
def _models(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    content: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True)):
        kind = draw(st.one_of(st.sampled_from(SIMPLE), types, alike(), alike(), alike()))
        content[name] = (kind | None, None) if draw(st.booleans()) else (kind, ...)
    words = {"topic": "generated", "type": "Happened"}
    return create_model("Happened", __base__=Event, __cls_kwargs__=words, **content)


def _event_document(cls: type[Event]) -> dict[str, Any]:
    service = Service("maker", publishes=[cls])
    assert gather([service]).messages
    return document(service)


def test_a_change_says_its_class_and_field() -> None:
    change = Change("field-removed", "orders/OrderPlaced/total", "gone", frozenset({"consumers", "producers"}))
    assert change.level == "breaking for consumers and producers"
    assert change.id == "field-removed orders/OrderPlaced/total"
