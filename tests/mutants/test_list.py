"""The list of deliberate breaks does not rot: each still applies to the source, and names a check that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eventkit.contract import CHECKS
from tests.backends import ALL as BACKENDS
from tests.mutants.listed import ALL
from tests.mutants.mutant import Mutant

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_it_applies_once_and_its_check_exists(mutant: Mutant) -> None:
    broken = mutant.applied((ROOT / mutant.file).read_text(encoding="utf-8"))
    compile(broken, mutant.file, "exec")
    assert mutant.old != mutant.new
    assert mutant.backend in BACKENDS
    file, _, test = mutant.test.partition("::")
    if mutant.check not in CHECKS:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {re.escape(test.partition('[')[0])}\(", text, re.MULTILINE), mutant.test


def test_each_check_of_the_contract_has_a_break_that_it_must_notice() -> None:
    assert set(CHECKS) - {mutant.check for mutant in ALL} == set()


def test_no_two_have_one_name() -> None:
    assert len({mutant.name for mutant in ALL}) == len(ALL)


def test_a_break_that_no_longer_applies_is_told() -> None:
    gone = Mutant("gone", "eventkit/retry.py", "no such text", "", "F1")
    with pytest.raises(ValueError, match="stands 0 times in"):
        gone.applied("something else")
