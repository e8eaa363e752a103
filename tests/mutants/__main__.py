"""Breaks the source on purpose, in a copy, one break at a time, and expects the check that is named to turn red.

    python -m tests.mutants                        all of them
    python -m tests.mutants --backend memory       those that are shown on this backend
    python -m tests.mutants "forget the lease"     those with this in their name

The checks are run unbroken first: one that is red then would prove nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from eventkit.testing.brokers import provide
from eventkit.testing.brokers.__main__ import variables
from tests.mutants.listed import ALL
from tests.mutants.mutant import Mutant

ROOT = Path(__file__).parent.parent.parent
COPIED = ("eventkit", "adapters", "tests", "examples", "pyproject.toml")
LIMIT = 240.0
"""Seconds that a check may take; a broken one may hang, and is red then too."""
_ONE_FAILED = 1
"""What pytest ends with where tests ran and some failed; anything else is a mistake of this list."""


def main() -> int:
    """Returns the exit code: 1 if a break was not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("names", nargs="*", help="only those with one of these in their name")
    parser.add_argument("--backend", action="append", help="only those that are shown there")
    options = parser.parse_args()
    wanted = [
        mutant
        for mutant in ALL
        if (not options.backend or mutant.backend in options.backend)
        and (not options.names or any(name in mutant.name for name in options.names))
    ]
    with tempfile.TemporaryDirectory(prefix="eventkit-mutants-") as folder, _brokers(wanted) as found:
        tree = Path(folder)
        for name in COPIED:
            _copy(ROOT / name, tree / name)
        survived = [what for mutant in wanted if (what := _judge(mutant, tree, found))]
    sys.stdout.write(f"{len(wanted) - len(survived)} of {len(wanted)} were caught\n")
    sys.stdout.writelines(f"  not caught: {what}\n" for what in survived)
    return 1 if survived else 0


def _judge(mutant: Mutant, tree: Path, environment: Mapping[str, str]) -> str | None:
    """Why it was not caught; None: it was."""
    began = time.monotonic()
    if _sound(mutant, tree, environment) != 0:
        return f"{mutant.name}: {mutant.check} is red on {mutant.backend} as it is"
    file = tree / mutant.file
    whole = file.read_text(encoding="utf-8")
    file.write_text(mutant.applied(whole), encoding="utf-8")
    try:
        code, output = _run(mutant, tree, environment)
    finally:
        file.write_text(whole, encoding="utf-8")
    why = re.search(r"^E  +(.*)", output, re.MULTILINE)
    said = "took too long" if code is None else why[1][:100] if why else output.strip()[-200:]
    caught = code is None or code == _ONE_FAILED
    sys.stdout.write(
        f"{'caught' if caught else 'SURVIVED'}: {mutant.name}, by {mutant.check} on {mutant.backend} "
        f"in {time.monotonic() - began:.0f} s{f': {said}' if caught else ''}\n"
    )
    sys.stdout.flush()
    if caught:
        return None
    return f"{mutant.name}: {mutant.check} on {mutant.backend} ended with {code}{'' if code == 0 else f': {said}'}"


_known: dict[str, int | None] = {}


def _sound(mutant: Mutant, tree: Path, environment: Mapping[str, str]) -> int | None:
    """How the check ends with the source as it is."""
    if mutant.test not in _known:
        _known[mutant.test] = _run(mutant, tree, environment)[0]
    return _known[mutant.test]


def _run(mutant: Mutant, tree: Path, environment: Mapping[str, str]) -> tuple[int | None, str]:
    command = [
        *(sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--backend", mutant.backend),
        str(tree / mutant.test.partition("::")[0]) + "::" + mutant.test.partition("::")[2],
    ]
    path = os.pathsep.join([str(tree), str(tree / "adapters")])
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EVENTKIT_")}
    env = {**clean, **environment, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    elif source.exists():
        shutil.copy(source, target)


@contextmanager
def _brokers(wanted: Sequence[Mutant]) -> Iterator[Mapping[str, str]]:
    """Those that are needed, for all checks; by the variables that tests find them by."""
    names = dict.fromkeys(mutant.backend for mutant in wanted if mutant.backend != "memory")
    found = [provide(name) for name in names]
    try:
        yield variables(found)
    finally:
        for broker in found:
            broker.stop()


if __name__ == "__main__":
    sys.exit(main())
