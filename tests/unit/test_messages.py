"""Event, Command and Topic: what may be declared, and what the declaration says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from eventkit import Command, DeclarationError, Event, Topic
from eventkit.messages import Undeclared, declared, nearest, routing

T = TypeVar("T")


class Quote(BaseModel):
    price: int


class Page(BaseModel, Generic[T]):
    items: list[T]


class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str


class QuoteShipping(Command[Quote], service="shipping"):
    postcode: str


def test_routing_lies_on_the_class() -> None:
    event, command = routing(OrderPlaced), routing(QuoteShipping)
    assert (event.type, event.version, event.key, event.topic) == ("OrderPlaced", 1, "order_id", Topic("orders"))
    assert (event.service, event.reply) == (None, None)
    assert (command.type, command.service, command.topic, command.key) == ("QuoteShipping", "shipping", None, None)
    assert command.reply is Quote


def test_the_wire_name_is_explicit_or_the_class_name_alone() -> None:
    class Renamed(Event, topic="orders", type="com.example.order-placed"):
        pass

    assert routing(Renamed).type == "com.example.order-placed"
    assert routing(OrderPlaced).type == "OrderPlaced"  # no module in it


def test_a_subclass_inherits_all_but_type() -> None:
    class Base(Event, topic="parcels", key="parcel", type="base", version=3):
        parcel: str

    class Child(Base):
        more: int

    class Elsewhere(Base, topic="archive", version=4):
        pass

    assert routing(Child).type == "Child"
    assert (routing(Child).topic, routing(Child).key, routing(Child).version) == (Topic("parcels"), "parcel", 3)
    assert routing(Elsewhere).topic == Topic("archive")
    assert (routing(Elsewhere).key, routing(Elsewhere).version) == ("parcel", 4)


def test_an_event_class_without_a_topic_is_a_base_for_others() -> None:
    class Shop(Event, key="shop"):
        shop: str

    class Opened(Shop, topic="shops"):
        pass

    assert routing(Opened).key == "shop"
    with pytest.raises(DeclarationError, match=r'Shop says no destination: .* class Shop\(\.\.\., topic="\.\.\."\)'):
        routing(Shop)
    with pytest.raises(DeclarationError, match=r'Lone .*service="\.\.\."'):

        class Lone(Command):
            pass

        routing(Lone)
    with pytest.raises(DeclarationError, match="Quote is neither an Event nor a Command"):
        routing(Quote)


def test_every_ordinary_name_is_free_for_fields() -> None:
    class Everything(Event, topic="all", key="key", type="wire", version=2):
        id: int
        key: str
        type: str
        time: str
        topic: str
        service: str
        version: int
        serializer: str
        headers: dict[str, str]
        source: str

    event = Everything(
        id=1, key="k", type="t", time="", topic="x", service="", version=9, serializer="", headers={}, source=""
    )
    assert (event.type, event.version, routing(Everything).type) == ("t", 9, "wire")


def test_messages_are_frozen_and_ignore_unknown_fields() -> None:
    event = OrderPlaced.model_validate({"order_id": "1", "of the next version": True})
    assert event == OrderPlaced(order_id="1")
    with pytest.raises(ValidationError, match="frozen"):
        event.order_id = "2"  # type: ignore[misc]


def test_pydantics_own_class_keywords_still_work() -> None:
    class Strict(Event, topic="orders", extra="forbid"):
        pass

    with pytest.raises(ValidationError):
        Strict.model_validate({"more": 1})


def _topic_typo() -> None:
    class Placed(Event, topc="orders"):
        pass


def _version_typo() -> None:
    class Placed(Event, topic="orders", verison=2):
        pass


def _nonsense() -> None:
    class Placed(Event, topic="orders", colour="red"):
        pass


def _service_on_event() -> None:
    class Placed(Event, service="orders"):
        pass


def _topic_on_command() -> None:
    class Place(Command, topic="orders"):
        pass


def _no_such_key() -> None:
    class Placed(Event, topic="orders", key="order"):
        order_id: str


def _key_without_fields() -> None:
    class Placed(Event, topic="orders", key="order"):
        pass


def _version_zero() -> None:
    class Placed(Event, topic="orders", version=0):
        pass


def _version_text() -> None:
    class Placed(Event, topic="orders", version="2"):
        pass


def _version_bool() -> None:
    class Placed(Event, topic="orders", version=True):
        pass


def _type_with_space() -> None:
    class Placed(Event, topic="orders", type="order placed"):
        pass


def _type_empty() -> None:
    class Placed(Event, topic="orders", type=""):
        pass


def _topic_with_space() -> None:
    class Placed(Event, topic="my orders"):
        pass


def _topic_reserved() -> None:
    class Placed(Event, topic="orders.retry"):
        pass


def _topic_dots() -> None:
    class Placed(Event, topic="orders..eu"):
        pass


def _topic_wildcard() -> None:
    class Placed(Event, topic="orders.*"):
        pass


def _topic_number() -> None:
    class Placed(Event, topic=7):
        pass


def _service_slash() -> None:
    class Place(Command, service="a/b"):
        pass


def _not_frozen() -> None:
    class Placed(Event, topic="orders", frozen=False):
        pass


def _not_frozen_by_config() -> None:
    class Placed(Event, topic="orders"):
        model_config = ConfigDict(frozen=False)


def _both() -> None:
    class Placed(Event, Command, topic="orders"):
        pass


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (_topic_typo, r"Placed: unknown class keyword topc=; did you mean topic=\?"),
        (_version_typo, r"Placed: unknown class keyword verison=; did you mean version=\?"),
        (_nonsense, r"Placed: unknown class keyword colour= \(legal: key, serializer, topic, type, version\)"),
        (_service_on_event, "Placed: service= belongs on a command"),
        (_topic_on_command, "Place: topic= belongs on an event"),
        (_no_such_key, r"Placed: key='order' is no field of it \(fields: order_id\)"),
        (_key_without_fields, r"Placed: key='order' is no field of it \(fields: none\)"),
        (_version_zero, "Placed: version=0 is no whole number from 1"),
        (_version_text, "Placed: version='2' is no whole number from 1"),
        (_version_bool, "Placed: version=True is no whole number from 1"),
        (_type_with_space, "Placed: type='order placed' must be printable text without spaces"),
        (_type_empty, "Placed: type='' must be"),
        (_topic_with_space, "Placed: topic: 'my orders' is no name: use letters, digits"),
        (_topic_reserved, "Placed: topic: 'orders.retry' ends in a word that eventkit keeps"),
        (_topic_dots, "Placed: topic: 'orders..eu' is no name"),
        (_topic_wildcard, r"Placed: topic: 'orders.\*' is no name"),
        (_topic_number, "Placed: topic: 7 is no name"),
        (_service_slash, "Place: service: 'a/b' is no name"),
        (_not_frozen, "Placed: messages are frozen; leave frozen=False out"),
        (_not_frozen_by_config, "Placed: messages are frozen"),
        (_both, "Placed is an Event and a Command at once"),
    ],
)
def test_a_wrong_declaration_names_the_class_and_the_mend(declare: Callable[[], None], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        declare()


def test_a_topic_may_stand_for_an_existing_channel() -> None:
    legacy = Topic("orders", physical="Legacy Orders!", default=OrderPlaced)

    class Old(Event, topic=legacy):
        pass

    assert routing(Old).topic is legacy
    with pytest.raises(DeclarationError, match=r"Topic\('orders'\): default=<class .*Quote'> is no Event class"):
        Topic("orders", default=Quote)  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match=r"Topic\('a b'\)"):
        Topic("a b")


def test_commands_say_their_reply() -> None:
    class Plain(Command, service="shipping"):
        pass

    class Nothing(Command[None], service="shipping"):
        pass

    class Many(Command[list[Quote]], service="shipping"):
        pass

    class Either(Command[Quote | None], service="shipping"):
        pass

    class Child(Many):
        pass

    assert routing(Plain).reply is None
    assert routing(Nothing).reply is None
    assert routing(Many).reply == list[Quote]
    assert routing(Either).reply == Quote | None
    assert routing(Child).reply == list[Quote]


def test_generic_commands_and_events_get_their_wire_name_from_a_derived_class() -> None:
    class Get(Command[T], Generic[T], service="store", key="name"):
        name: str

    class GetPage(Command[Page[T]], Generic[T], service="store"):
        number: int

    class GetMany(Get[list[T]], Generic[T]):
        pass

    class GetQuote(Get[Quote]):
        pass

    class GetQuotes(GetPage[Quote]):
        pass

    class GetNumbers(GetMany[int]):
        pass

    class Changed(Event, Generic[T], topic="changes"):
        value: T

    class QuoteChanged(Changed[Quote]):
        pass

    assert (routing(GetQuote).type, routing(GetQuote).service, routing(GetQuote).key) == ("GetQuote", "store", "name")
    assert routing(GetQuote).reply is Quote
    assert routing(GetQuotes).reply == Page[Quote]
    assert routing(GetNumbers).reply == list[int]
    assert routing(QuoteChanged).topic == Topic("changes")
    for still_open in (Get, Get[Quote], Changed, Changed[Quote], Command[Quote]):
        with pytest.raises(DeclarationError, match="has no wire name: derive a class"):
            routing(still_open)


def test_upcasters_are_kept_by_the_version_they_start_from() -> None:
    class Third(Event, topic="orders", version=3):
        total: int

    @Third.upcast(from_version=1)
    def first(data: dict[str, Any]) -> dict[str, Any]:
        return data

    @Third.upcast(from_version=2)
    def second(data: dict[str, Any]) -> dict[str, Any]:
        return data

    assert routing(Third).upcasters == {1: first, 2: second}
    for version in (0, 3, 4):
        with pytest.raises(DeclarationError, match=rf"Third.upcast\(from_version={version}\): the class is version 3"):
            Third.upcast(from_version=version)(first)


def test_a_subclass_has_no_upcasters_of_its_parent() -> None:
    class Second(Event, topic="orders", version=2):
        pass

    Second.upcast(from_version=1)(lambda data: data)

    class Third(Second, version=3):
        pass

    assert routing(Third).upcasters == {}


def test_a_wire_name_finds_its_class() -> None:
    class Found(Event, topic="found.by.name"):
        pass

    class Twice(Event, topic="found.by.name"):
        pass

    class Again(Event, topic="found.by.name", type="Twice"):
        pass

    Again.__module__ = "shop.orders"
    found = declared("found.by.name")
    assert found == {"Found": [Found], "Twice": [Again, Twice]}
    assert nearest(found["Found"], "shop.audit") is Found
    assert nearest(found["Twice"], __name__) is Twice, "of two, the one of the handler's own module"
    assert nearest(found["Twice"], "shop.audit") is Again, "of two, the one of the handler's package"
    assert nearest(found["Twice"], "billing") is None, "one of two would be a guess"
    assert nearest([], __name__) is None
    assert declared("elsewhere") == {}
    assert Undeclared.model_validate({"any": [1]}).model_dump() == {"any": [1]}
