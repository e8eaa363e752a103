"""A service against the committed document of another."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from eventkit import Command, Event, Service, asyncapi
from eventkit.asyncapi import DocumentError
from eventkit.testing import assert_fits


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Placed(Event, topic="orders"):
    order: str
    size: Size
    note: str = ""


class Paid(Event, topic="payments"):
    order: str


class Weigh(Command[int], service="scales"):
    order: str


class Weighed(Event, topic="weights"):
    order: str


shipping = Service("shipping")
lonely = Service("lonely")


@shipping.handler
async def placed(event: Placed) -> None: ...


@shipping.handler
async def paid(event: Paid) -> Weigh:
    return Weigh(order=event.order)


@lonely.handler
async def weighed(event: Weighed) -> None: ...


def committed(folder: Path, change: Any = lambda schemas: None) -> Path:
    """What the others have committed to: they place orders, and weigh parcels."""
    orders, scales = Service("orders"), Service("scales")

    @orders.handler
    async def paid(event: Paid) -> Placed:
        return Placed(order=event.order, size=Size.SMALL)

    @scales.handler
    async def weigh(command: Weigh) -> int:
        return 1

    document = json.loads(asyncapi.to_json(asyncapi.document(orders, scales)))
    change(document)
    file = folder / "orders.json"
    file.write_text(json.dumps(document))
    return file


def payload(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"][name]
    return found


def test_what_fits_is_let_be(tmp_path: Path) -> None:
    assert_fits(committed(tmp_path), shipping, Placed, Weigh)


def enum_grows(document: dict[str, Any]) -> None:
    payload(document, "Size")["enum"].append("huge")


def field_goes(document: dict[str, Any]) -> None:
    schema = payload(document, "Placed")
    del schema["properties"]["order"]
    schema["required"].remove("order")


def type_changes(document: dict[str, Any]) -> None:
    payload(document, "Placed")["properties"]["order"] = {"type": "integer"}


def command_wants_more(document: dict[str, Any]) -> None:
    schema = payload(document, "Weigh")
    schema["properties"]["scale"] = {"type": "string"}
    schema["required"].append("scale")


def is_not_published(document: dict[str, Any]) -> None:
    document["operations"] = {
        key: value
        for key, value in document["operations"].items()
        if value["action"] != "send" or "orders" not in value["channel"]["$ref"]
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (enum_grows, "huge"),
        (field_goes, "Placed.order"),
        (type_changes, "Placed.order"),
        (command_wants_more, "Weigh.scale"),
        (is_not_published, "no service of the document publishes Placed"),
    ],
)
def test_what_no_longer_fits_is_named(change: Any, said: str, tmp_path: Path) -> None:
    file = committed(tmp_path, change)
    with pytest.raises(AssertionError, match=r"shipping no longer fits .*orders\.json") as caught:
        assert_fits(file, shipping, Placed, Weigh)
    assert said in str(caught.value)


def test_without_classes_all_that_has_a_channel_there_is_looked_at(tmp_path: Path) -> None:
    file = committed(tmp_path)
    with pytest.raises(AssertionError, match="no service of the document publishes Paid"):
        assert_fits(file, shipping)
    with pytest.raises(AssertionError, match="huge"):
        assert_fits(committed(tmp_path, enum_grows), shipping)


def test_nothing_to_look_at_is_an_error(tmp_path: Path) -> None:
    file = committed(tmp_path)
    with pytest.raises(DocumentError, match="no channel that lonely reads"):
        assert_fits(file, lonely)
    with pytest.raises(DocumentError, match="shipping neither reads nor sends Weighed"):
        assert_fits(file, shipping, Weighed)
    with pytest.raises(AssertionError, match="no service of the document publishes Weighed"):
        assert_fits(file, lonely, Weighed)
