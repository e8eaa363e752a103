"""The public interface is what tests/api.txt says, and every part of it is explained."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import api
from tests.programs import ROOT

_CLIENTS = ("aiokafka", "aio_pika", "aiormq", "nats", "redis", "faststream", "testcontainers", "pytest", "sqlalchemy")


def test_the_public_interface_is_the_one_that_was_agreed_on() -> None:
    agreed = api.FILE.read_text(encoding="utf-8").splitlines()
    found = api.lines()
    gone = [line for line in agreed if line not in found]
    new = [line for line in found if line not in agreed]
    assert (gone, new) == ([], []), (
        "the public interface is another one: where that is meant, run `python -m tests.api` and say so in CHANGELOG.md"
    )


@pytest.mark.parametrize("module", api.MODULES)
def test_every_public_class_and_function_is_explained(module: str) -> None:
    found = importlib.import_module(module)
    names = getattr(found, "__all__", [name for name in vars(found) if not name.startswith("_")])
    ours = {name: thing for name in names if _is_ours(thing := getattr(found, name))}
    silent = [name for name, thing in ours.items() if not inspect.getdoc(thing)]
    assert silent == []


_NEEDED = {
    *("annotated_types", "anyio", "dotenv", "fast_depends", "pydantic", "pydantic_core", "pydantic_settings"),
    *("typing_extensions", "typing_inspection", "uuid_utils"),
}


def test_eventkit_imports_what_it_needs_and_nothing_else() -> None:
    """Neither a client of a broker nor the command line's libraries: how long it takes is measured by bench/."""
    code = (
        "import sys; before = {*sys.modules}; import eventkit; "
        "print({name.partition('.')[0] for name in {*sys.modules} - before} - {*sys.stdlib_module_names})"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    found = {name for name in ast.literal_eval(made.stdout) if not name.startswith("_sysconfigdata")}
    assert found - _NEEDED == {"eventkit"}


def test_eventkit_imports_no_client_of_a_broker() -> None:
    code = f"import sys, eventkit, eventkit.memory; print([name for name in {_CLIENTS} if name in sys.modules])"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert made.stdout.strip() == "[]"


_BLOCKS = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHOWN = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.py")),
]


@pytest.fixture(scope="module")
def public() -> set[str]:
    return api.names() | {*api.MODULES}


@pytest.mark.parametrize("shown", _SHOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_users_are_shown_nothing_that_is_not_public(shown: Path, public: set[str]) -> None:
    text = shown.read_text(encoding="utf-8")
    used = {name for code in (_BLOCKS.findall(text) if shown.suffix == ".md" else [text]) for name in _used(code)}
    assert used - public == set(), (
        "not in `__all__` of a module that tests/api.py names: make it public, or show another way"
    )


def test_what_is_public_is_in_the_reference_and_on_the_page_about_versions() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\.\. automodule:: (\S+)$", reference, re.MULTILINE)
    versions = (ROOT / "docs" / "stability.md").read_text(encoding="utf-8")
    listed = [name for name in re.findall(r"`(eventkit[\w.]*)`", versions) if "." in name or name == "eventkit"]
    assert sorted(explained) == sorted(api.MODULES)
    assert sorted(set(listed)) == sorted(api.MODULES)


def _used(code: str) -> Iterator[str]:
    """The names of eventkit that this code imports, or takes from what it imports."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "eventkit":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "eventkit")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "eventkit":
            yield f"eventkit.{node.attr}"


def _is_ours(thing: object) -> bool:
    return (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__.startswith("eventkit")
