"""docs/guarantees.md says what the contract and the adapters say."""

from __future__ import annotations

from eventkit import discovery
from eventkit.contract import CHECKS
from tests.backends import ALL
from tests.guarantees import FAMILIES, PAGE, capabilities


def test_every_behaviour_is_on_the_page() -> None:
    page = PAGE.read_text()
    missing = [check.id for check in CHECKS.values() if f"| {check.id} | {check.sentence} |" not in page]
    assert not missing, f"python -m tests.guarantees writes the page anew; it lacks {missing}"


def test_no_behaviour_is_without_a_family() -> None:
    assert {check.id[0] for check in CHECKS.values()} <= set(FAMILIES)


def test_the_capabilities_are_those_of_the_adapters() -> None:
    page = PAGE.read_text()
    assert "\n".join(capabilities()) in page


def test_the_page_about_order_says_what_the_adapters_say() -> None:
    page = (PAGE.parent / "order.md").read_text()
    assert "| | memory | Redis | NATS | RabbitMQ | Kafka |" in page
    can = [discovery.load(name).capabilities.key_order_across_replicas for name in ALL]
    assert f"| several replicas read, come and go | {' | '.join('yes' if one else 'no' for one in can)} |" in page


def test_nothing_on_the_page_failed() -> None:
    assert "| fail |" not in PAGE.read_text()
