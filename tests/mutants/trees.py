"""Copies of the source to break, and what a check says of one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from tests.mutants.mutant import Mutant

ROOT = Path(__file__).parent.parent.parent
COPIED = ("eventkit", "adapters", "tests", "examples", "pyproject.toml")
_EACH, _START = 120.0, 60.0
"""Seconds that a check may take, which has a limit of its own; and pytest besides, with a broker to be broken."""
_ASSERTED = ("assert ", "AssertionError", "Failed: DID NOT RAISE")
"""How the message of a failed assertion begins."""


class Said(NamedTuple):
    """What became of one test."""

    outcome: str
    """passed, failed, skipped; error: it did not come so far."""
    why: str
    """The first line of its message."""

    def noticed(self, mutant: Mutant) -> bool:
        """Did the check fail by what it is there for?"""
        return self.outcome == "failed" and self.why.startswith(mutant.fails_with or _ASSERTED)


class Tree:
    """A copy, in which one break at a time is made."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._report = folder / "report.xml"
        path = os.pathsep.join([str(folder), str(folder / "adapters")])
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EVENTKIT_")}
        self._environment = {**clean, **environment, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        for name in COPIED:
            _copy(ROOT / name, folder / name)

    @contextmanager
    def broken(self, mutant: Mutant) -> Iterator[None]:
        """Meanwhile this break is made."""
        file = self._folder / mutant.file
        whole = file.read_text(encoding="utf-8")
        file.write_text(mutant.applied(whole), encoding="utf-8")
        try:
            yield
        finally:
            file.write_text(whole, encoding="utf-8")

    def run(self, tests: Sequence[str], backend: str) -> list[Said]:
        """What became of each test that these names mean. Empty: pytest did not come to an end."""
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--backend", backend),
            *(("-p", "tests.mutants.impatient") if backend == "memory" else ()),
            *(f"--junitxml={self._report}", *tests),
        ]
        self._report.unlink(missing_ok=True)
        limit = _START + _EACH * len(tests)
        try:
            subprocess.run(
                command, cwd=self._folder, env=self._environment, capture_output=True, timeout=limit, check=False
            )
            return list(map(_said, ElementTree.parse(self._report).iter("testcase")))
        except (subprocess.TimeoutExpired, OSError, ElementTree.ParseError):
            return []


def _said(case: ElementTree.Element) -> Said:
    for kind, outcome in (("error", "error"), ("failure", "failed"), ("skipped", "skipped")):
        found = case.find(kind)
        if found is not None:
            return Said(outcome, found.get("message", "").partition("\n")[0])
    return Said("passed", "")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    elif source.exists():
        shutil.copy(source, target)
