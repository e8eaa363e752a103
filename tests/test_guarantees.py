"""docs/guarantees.md says what the contract and the adapters say."""

from __future__ import annotations

from eventkit.contract import CHECKS
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


def test_nothing_on_the_page_failed() -> None:
    assert "| fail |" not in PAGE.read_text()
