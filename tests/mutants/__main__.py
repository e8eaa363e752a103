"""Breaks the source on purpose, in copies, one break at a time, and expects the check that is named to turn red.

    python -m tests.mutants                        all of them
    python -m tests.mutants --backend memory       those that are shown on this backend
    python -m tests.mutants "forget the lease"     those with this in their name
    python -m tests.mutants --check F4             those that this check must notice

The checks are run unbroken first: one that is red then would prove nothing. A check must fail by an assertion of its
own: one that breaks off by some other error, or takes too long, may have noticed nothing.
"""

from __future__ import annotations

import argparse
import queue
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from eventkit.testing.brokers import provide
from eventkit.testing.brokers.__main__ import variables
from tests.mutants.listed import ALL
from tests.mutants.mutant import Mutant
from tests.mutants.trees import Said, Tree

T = TypeVar("T")

_NOTHING = Said("error", "pytest did not come to its end")


def main() -> int:
    """Returns the exit code: 1 if a break was not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("names", nargs="*", help="only those with one of these in their name")
    parser.add_argument("--backend", action="append", help="only those that are shown there")
    parser.add_argument("--check", action="append", help="only those that this check must notice")
    parser.add_argument("--jobs", type=int, default=3, help="so many at once: most of a check is waiting")
    options = parser.parse_args()
    wanted = [
        mutant
        for mutant in ALL
        if (not options.backend or mutant.backend in options.backend)
        and (not options.check or mutant.check in options.check)
        and (not options.names or any(name in mutant.name for name in options.names))
    ]
    with tempfile.TemporaryDirectory(prefix="eventkit-mutants-") as folder, _brokers(wanted) as found:
        trees = [Tree(Path(folder) / str(job), found) for job in range(options.jobs)]
        survived = _judge_all(wanted, trees)
    _say(f"{len(wanted) - len(survived)} of {len(wanted)} were caught")
    for what in survived:
        _say(f"  not caught: {what}")
    return 1 if survived else 0


def _judge_all(wanted: Sequence[Mutant], trees: Sequence[Tree]) -> list[str]:
    """Why which were not caught. Each tree is used by one at a time."""
    free: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    for tree in trees:
        free.put(tree)

    def with_tree(judge: Callable[[Tree], T]) -> T:
        tree = free.get()
        try:
            return judge(tree)
        finally:
            free.put(tree)

    checks = {backend: list({m.test: None for m in wanted if m.backend == backend}) for backend in _backends(wanted)}
    shares = [(backend, tests[at :: len(trees)]) for backend, tests in checks.items() for at in range(len(trees))]
    with ThreadPoolExecutor(len(trees)) as pool:
        unsound: dict[tuple[str, str], str] = {}
        for found in pool.map(lambda share: with_tree(lambda tree: _unsound(share[0], share[1], tree)), shares):
            unsound.update(found)
        sound = [mutant for mutant in wanted if (mutant.backend, mutant.test) not in unsound]
        survived = pool.map(lambda mutant: with_tree(lambda tree: _survives(mutant, tree)), sound)
        return [*unsound.values(), *(why for why in survived if why is not None)]


def _backends(wanted: Sequence[Mutant]) -> list[str]:
    return list(dict.fromkeys(mutant.backend for mutant in wanted))


def _unsound(backend: str, tests: Sequence[str], tree: Tree) -> dict[tuple[str, str], str]:
    """Which of these checks would prove nothing, and why: they do not pass while nothing is broken."""
    if not tests or all(one.outcome == "passed" for one in tree.run(tests, backend) or [_NOTHING]):
        return {}
    if len(tests) > 1:  # which of them?
        return {about: why for test in tests for about, why in _unsound(backend, [test], tree).items()}
    ended = "; ".join(f"{one.outcome}: {one.why}" for one in tree.run(tests, backend)) or "it took too long"
    why = f"{tests[0]} is not green on {backend} as it is: {ended}"
    _say(f"UNSOUND: {why}")
    return {(backend, tests[0]): why}


def _survives(mutant: Mutant, tree: Tree) -> str | None:
    """Why it was not caught; None: it was."""
    began = time.monotonic()
    with tree.broken(mutant):
        said = tree.run([mutant.test], mutant.backend)
    where = f"{mutant.name}, by {mutant.check} on {mutant.backend} in {time.monotonic() - began:.0f} s"
    noticed = [one.why for one in said if one.noticed(mutant)]
    if noticed:
        _say(f"caught: {where}: {noticed[0][:140]}")
        return None
    ended = "; ".join(f"{one.outcome}: {one.why[:300]}" for one in said) or "it took too long"
    _say(f"SURVIVED: {where}: {ended}")
    return f"{mutant.name}, by {mutant.check} on {mutant.backend}: {ended}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def _brokers(wanted: Sequence[Mutant]) -> Iterator[Mapping[str, str]]:
    """Those that are needed, for all checks; by the variables that tests find them by."""
    names = [backend for backend in _backends(wanted) if backend != "memory"]
    found = [provide(name) for name in names]
    try:
        yield variables(found)
    finally:
        for broker in found:
            broker.stop()


if __name__ == "__main__":
    sys.exit(main())
