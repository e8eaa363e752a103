"""The crash rig, short: a few rounds on each broker, from a seed that is printed. `nox -s crash` is the long one."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eventkit.testing.brokers import NAMES
from tests.breakable import Breakable
from tests.programs import ROOT
from tests.rig import page
from tests.rig import run as rig
from tests.rig.checker import About, Checker
from tests.rig.journal import Entry, Journal, Reader
from tests.rig.rounds import draw
from tests.rig.targets import leased
from tests.wanted import wanted

ROUNDS, FEWER = 3, {"kafka": 2}
"""Each takes Kafka's group a session of 6 s, or its broker a Java machine's start."""
AT_ONCE = 2
"""Brokers: most of a run is waiting."""


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, breakable: Callable[[str], Breakable], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], rig.Result]]:
    """The result on a broker. Runs of all that are asked for begin at once, a few at a time."""
    asked = [
        name
        for name in NAMES
        if name in wanted(request.config)
        and any(item.nodeid.endswith(f"test_nothing_is_lost[{name}]") for item in request.session.items)
    ]

    def one(name: str) -> rig.Result:
        seed = secrets.randbelow(1_000_000)
        return rig.run(
            leased(breakable(name)),
            seed,
            FEWER.get(name, ROUNDS),
            print,
            calm=1.0,
            keep=tmp_path_factory.mktemp(f"{name}-{seed}-"),
        )

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="rig") as pool:
        futures = {name: pool.submit(one, name) for name in asked}
        yield lambda name: futures[name].result() if name in futures else pytest.skip(f"{name} is not asked for")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_lost(name: str, runs: Callable[[str], rig.Result]) -> None:
    result = runs(name)
    count, seed = result.count, result.seed
    assert count.acknowledged
    assert not count.lost, f"seed {seed}: {result.lost} lost, {result.left} left over, of {count.lost[:5]} ..."
    assert not result.left, f"seed {seed}: {result.left} left over"
    assert not count.wrong_letters, f"seed {seed}: {count.wrong_letters[:5]}"
    assert not count.overtried, f"seed {seed}: {count.overtried[:5]}"
    assert not result.red, f"seed {seed}: {result.red}"
    if not result.overtakes:  # elsewhere a lease of 2 s ends while a busy machine lets a process stand still
        assert not count.out_of_order, f"seed {seed}: {count.out_of_order[:5]}"


# the checker itself


def entries(life: str, *lines: str) -> list[Entry]:
    return [Entry(life, float(at), *_split(line)) for at, line in enumerate(lines)]


def _split(line: str) -> tuple[str, tuple[str, ...]]:
    word, *rest = line.split()
    return word, tuple(rest)


def checked(*replica: str, sent: tuple[str, ...] = ("ordered k 0", "ordered k 1")) -> Checker:
    checker = Checker()
    for one in sent:
        checker.take(entries("producer-0.1", f"sent {one}", f"acked {one}"))
    checker.take(entries("replica-0.1", *replica))
    return checker


def handled(*numbers: int, group: str = "rig") -> list[str]:
    return [line for n in numbers for line in (f"began {group} ordered k {n} 1 usual", f"ended {group} ordered k {n}")]


AUDITED = handled(0, 1, group="rig.audit")


def test_what_is_handled_in_order_by_both_groups_is_good() -> None:
    count = checked(*handled(0, 1), *AUDITED).count([], calm=0.0, across_replicas=True)
    assert count.good
    assert (count.acknowledged, count.handled, count.duplicated) == (2, 4, 0)


def test_what_one_group_did_not_handle_is_lost() -> None:
    checker = checked(*handled(0), *AUDITED)
    assert checker.missing() == {About("rig", "ordered", "k", 1)}
    assert checker.count([], calm=0.0, across_replicas=True).lost == [About("rig", "ordered", "k", 1)]


def test_what_was_begun_and_not_ended_is_lost() -> None:
    checker = checked(*handled(0), "began rig ordered k 1 1 usual", *AUDITED)
    assert len(checker.count([], calm=0.0, across_replicas=True).lost) == 1


@pytest.mark.parametrize(("left", "lost"), [(0, 2), (1, 1), (2, 0), (9, 0)])
def test_what_the_broker_still_has_is_not_lost(left: int, lost: int) -> None:
    count = checked(*AUDITED).count([], calm=0.0, across_replicas=True)
    result = rig.Result("nats", 1, 1, 0.0, 0.0, count, left=left)
    assert (result.lost, result.good) == (lost, False)


def test_what_was_never_acknowledged_is_unknown() -> None:
    checker = Checker()
    checker.take(entries("producer-0.1", "sent plain k 0", "refused plain k 0"))
    count = checker.count([], calm=0.0, across_replicas=True)
    assert (count.unknown, count.lost) == (1, [])


def test_a_repeat_is_counted_and_no_disorder() -> None:
    count = checked(*handled(0, 1, 0), *AUDITED).count([], calm=0.0, across_replicas=True)
    assert count.good
    assert count.duplicated == 1


@pytest.mark.parametrize(("calm", "across", "wrong"), [(0.0, False, 1), (9.0, True, 1), (9.0, False, 0)])
def test_disorder_counts_where_order_is_promised(calm: float, across: bool, wrong: int) -> None:
    count = checked(*handled(1, 0), *AUDITED).count([], calm=calm, across_replicas=across)
    assert (len(count.out_of_order), count.overtaken) == (wrong, 1 - wrong)


def test_a_suspect_has_no_order() -> None:
    lines = [line.replace("0 1 usual", "0 1 suspect") for line in handled(1, 0)]
    count = checked(*lines, *AUDITED).count([], calm=0.0, across_replicas=True)
    assert (len(count.out_of_order), count.overtaken) == (0, 1)


def test_a_repeat_of_what_another_replica_has_handled_is_no_disorder() -> None:
    checker = checked(*handled(0), *AUDITED)
    checker.take([entry._replace(time=entry.time + 9) for entry in entries("replica-1.1", *handled(1, 0))])
    count = checker.count([], calm=0.0, across_replicas=True)
    assert (len(count.out_of_order), count.overtaken, count.duplicated) == (0, 1, 1)


def test_dead_letters_are_right_only_where_they_were_asked_for() -> None:
    sent = ("doomed k 0", "plain k 1")
    lines = [line for n, what in ((0, "doomed"), (1, "plain")) for line in (f"ended rig.audit {what} k {n}",)]
    checker = checked(*lines, "ended rig plain k 1", sent=sent)
    doomed, plain = About("rig", "doomed", "k", 0), About("rig", "plain", "k", 1)
    assert checker.count([doomed], calm=0.0, across_replicas=True).good
    assert checker.count([], calm=0.0, across_replicas=True).lost == [doomed]
    assert checker.count([doomed, plain], calm=0.0, across_replicas=True).wrong_letters == [str(plain)]


def test_a_line_that_a_kill_has_cut_off_is_none(tmp_path: Path) -> None:
    Journal(tmp_path, "replica-0.1").write("ended", "rig", "plain", "k", 7)
    with (tmp_path / "replica-0.1.log").open("ab") as file:
        file.write(b"1.5 ended rig pla")
    reader = Reader(tmp_path)
    assert [(entry.life, entry.word, entry.rest) for entry in reader.news()] == [
        ("replica-0.1", "ended", ("rig", "plain", "k", "7"))
    ]
    with (tmp_path / "replica-0.1.log").open("ab") as file:
        file.write(b"in k 8\n")
    assert [entry.rest[-1] for entry in reader.news()] == ["8"]


def test_the_same_seed_draws_the_same_rounds() -> None:
    assert draw(7, 50, 2.0) == draw(7, 50, 2.0) != draw(8, 50, 2.0)


def test_the_page_says_what_the_rig_would_write() -> None:
    before, after = page.TEXT.read_text(encoding="utf-8").split("<!-- table -->")
    written = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert (written.startswith(before), written.endswith(after)) == (True, True)
