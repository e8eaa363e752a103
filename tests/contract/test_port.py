"""docs/port.md has each sentence of the port's docstrings, and the checks that hold it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import eventkit.adapter
from eventkit.contract import CHECKS

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "port.md"
MEANING = "what it means"
"""In the place of checks: the sentence says what a word means, and promises nothing."""
_END = re.compile(r"(?<=[.?]) (?=[A-Z`0-9])")
_ROW = re.compile(r"\| `(?P<where>[^`]+)` \| (?P<sentence>.+) \| (?P<held>[^|]+) \|")


def sentences() -> list[tuple[str, str]]:
    """Of what, and the sentence, in the order of the source."""
    tree = ast.parse(Path(eventkit.adapter.__file__).read_text(encoding="utf-8"))
    return [(where, said) for where, text in _docstrings(tree, "") for said in _END.split(" ".join(text.split()))]


def _docstrings(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, str]]:
    name = ""
    for part in node.body:
        if isinstance(part, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            where = f"{prefix}{part.name}"
            if (said := ast.get_docstring(part)) is not None:
                yield where, said
            if isinstance(part, ast.ClassDef):
                yield from _docstrings(part, f"{where}.")
        elif isinstance(part, ast.AnnAssign | ast.Assign):
            target = part.target if isinstance(part, ast.AnnAssign) else part.targets[0]
            name = target.id if isinstance(target, ast.Name) else ""
        elif isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and name:
            yield f"{prefix}{name}", str(part.value.value)
            name = ""


def _rows() -> list[tuple[str, str, str]]:
    found = map(_ROW.fullmatch, PAGE.read_text(encoding="utf-8").splitlines())
    return [(row["where"], row["sentence"], row["held"]) for row in found if row is not None]


def test_each_sentence_of_the_port_is_on_the_page() -> None:
    assert [(where, sentence) for where, sentence, _ in _rows()] == sentences()


def test_what_holds_a_sentence_exists() -> None:
    for where, sentence, held in _rows():
        if held == MEANING:
            continue
        for one in held.split(", "):
            there = one in CHECKS or (one.startswith("`tests/") and (ROOT / one.strip("`")).is_file())
            assert there, f"{where}: {sentence!r} is held by {one}, which is no check and no test"
