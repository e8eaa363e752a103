"""Physical names: legal, distinct, and never changed without being noticed.

`python tests/unit/test_names.py` writes the golden file anew. A change in it means that a running system's topics,
queues and groups are no longer found: it needs a migration, and a word in the changelog.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from eventkit import DeclarationError, names
from eventkit.names import SUFFIXES, Naming

GOLDEN = Path(__file__).with_name("names.golden.txt")

BROKERS: dict[str, Callable[[str], Naming]] = {
    "kafka": names.kafka,
    "memory": names.memory,
    "nats": names.nats,
    "rabbit": names.rabbit,
    "redis": names.redis,
}
NAMESPACES = ("", "shop", "acme.eu-1")
LONG = "x" * 150 + "." + "y" * 150
LOGICAL = ("orders", "orders.eu", "Order_Placed-2", "shipping.audit", "7", LONG, LONG + "2")

LEGAL = {
    "kafka": re.compile(r"(?!\.\.?$)[a-zA-Z0-9._-]{1,249}"),
    "memory": re.compile(r".+"),
    "nats": re.compile(r"[^\s.*>/\\\x00-\x20]{1,255}"),
    "rabbit": re.compile(r"(?!amq\.)[\x21-\x7e]{1,127}"),
    "redis": re.compile(r"[\x21-\x7e]{1,512}"),
}


def rows() -> list[tuple[str, str, str, str, str]]:
    """Broker, namespace, kind, logical name, physical name."""
    found: list[tuple[str, str, str, str, str]] = []
    for broker, make in BROKERS.items():
        for namespace in NAMESPACES:
            naming = make(namespace)
            for name in LOGICAL:
                found += [(broker, namespace, kind, name, naming.channel(kind, name)) for kind in SUFFIXES]
                found.append((broker, namespace, "group", name, naming.group(name)))
            found.append((broker, namespace, "physical", "orders", naming.channel("topic", "orders", "Legacy Orders!")))
    return found


def table() -> str:
    """The golden file's text. `x{150}` stands for 150 times x."""
    text = "".join(
        f"{broker:<7} {namespace or '-':<10} {kind:<9} {name:<18} {physical}\n"
        for broker, namespace, kind, name, physical in rows()
    )
    return re.sub(r"x{9,}|y{9,}", lambda run: f"{run[0][0]}{{{len(run[0])}}}", text)


def test_no_physical_name_has_changed() -> None:
    assert table().splitlines() == GOLDEN.read_text().splitlines()


def test_every_name_is_legal_on_its_broker() -> None:
    for broker, namespace, kind, name, physical in rows():
        if kind != "physical":
            assert LEGAL[broker].fullmatch(physical), f"{broker} {namespace} {kind} {name}: {physical}"


def test_no_two_channels_or_groups_share_a_name() -> None:
    seen: dict[tuple[str, str, bool, str], tuple[str, str]] = {}
    for broker, namespace, kind, name, physical in rows():
        key = (broker, namespace, kind == "group", physical)
        assert seen.setdefault(key, (kind, name)) == (kind, name), f"{key}: {seen[key]} and {(kind, name)}"


def test_a_physical_name_is_taken_as_it_is() -> None:
    for make in BROKERS.values():
        assert make("shop").channel("topic", "orders", "Legacy Orders!") == "Legacy Orders!"


def test_long_names_are_cut_and_stay_distinct() -> None:
    for broker, make in BROKERS.items():
        naming = make("shop")
        first, second = naming.channel("dead", LONG), naming.channel("dead", LONG + "2")
        assert first != second
        assert max(len(first), len(second)) <= naming.longest
        if broker != "memory":
            assert re.search(r"-[0-9a-f]{10}$", first)
        just = "x" * (naming.longest - len("shop" + naming.separator))
        assert naming.channel("topic", just).endswith(just)  # as long as may be: not cut


@pytest.mark.parametrize("name", ["a", "A1", "orders", "orders.eu", "my_orders", "a-b", "inbox", "dead-letters", "7"])
def test_legal_logical_names(name: str) -> None:
    assert names.logical(name, "it") == name


@pytest.mark.parametrize(
    "name",
    [
        *["", " ", "a b", ".a", "a.", "-a", "a-", "_a", "a..b", "a/b", "a*", "a>", "a:b", "ä", "a\n", "a\0", None, 7],
        *["orders.inbox", "orders.retry", "orders.dead", "orders.reply"],
    ],
)
def test_illegal_logical_names_are_refused(name: object) -> None:
    with pytest.raises(DeclarationError, match=r"^Topic: .*(is no name: use letters|ends in a word)"):
        names.logical(name, "Topic")


@pytest.mark.parametrize("broker", BROKERS)
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_channel_is_read_back(broker: str, namespace: str) -> None:
    naming = BROKERS[broker](namespace)
    for name in LOGICAL:
        for kind in SUFFIXES:
            channel = naming.channel(kind, name)
            read = naming.read(channel)
            assert read is not None
            if name == read[1]:
                assert read == (kind, name)
            else:  # it was cut
                assert naming.channel(*read) == channel
    dead = [naming.channel("dead", name) for name in ("shipping", "shipping.audit")]
    assert naming.groups([*dead, naming.channel("topic", "deadly"), naming.channel("retry", "other")]) == [
        "shipping",
        "shipping.audit",
    ]
    assert naming.source(naming.channel("topic", "orders.eu")) == ("topic", "orders.eu", None)
    assert naming.source(naming.channel("inbox", "shipping")) == ("inbox", "shipping", None)
    assert naming.source(naming.channel("retry", "shipping")) is None


def test_what_lies_outside_of_a_namespace_is_somebody_elses() -> None:
    naming = names.redis("shop")
    assert naming.read("shops.orders") is None
    assert naming.groups(["shops.shipping.dead", "shipping.dead", "shop.dead"]) == []
    assert naming.source("legacy.orders") == ("topic", "legacy.orders", "legacy.orders")


if __name__ == "__main__":
    GOLDEN.write_text(table())
