"""Every code block of README.md and docs/ is run, as a reader would run it.

A document is a folder. A Python block whose first line is `# name.py` is that file in it; any other Python block is run
there by itself; `examples` can be imported. In a `console` block each line that begins with `$` is run, and its output
must have the lines below. `sh` blocks are not run, as they are for the project's own folder: what they name must exist.
"""

from __future__ import annotations

import re
import shlex
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from eventkit.testing.brokers import Broker
from tests.backends import ALL
from tests.programs import EVENTKIT, ROOT, Program
from tests.wanted import wanted

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
KNOWN = {"python", "console", "sh", "text", "json", "toml", "yaml", ""}
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w/]+\.py)\n")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int


def blocks(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    return [Block(m[1], m[2], text[: m.start()].count("\n") + 2) for m in _BLOCK.finditer(text)]


def named(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.fixture
def folder(document: Path, tmp_path: Path) -> Path:
    """With the document's files."""
    for block in blocks(document):
        if block.language == "python" and (found := _FILE.match(block.text)):
            (tmp_path / found[1]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / found[1]).write_text(block.text, encoding="utf-8")
    return tmp_path


each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=named)


@each_document
def test_blocks_say_what_they_are(document: Path) -> None:
    for block in blocks(document):
        assert block.language in KNOWN, f"{named(document)}:{block.line}: {block.language!r}"


@each_document
def test_python_blocks_run(document: Path, folder: Path, pytestconfig: pytest.Config) -> None:
    absent = [name for name in ALL if name not in wanted(pytestconfig)]  # its extra may not be installed
    for block in blocks(document):
        if block.language != "python" or _FILE.match(block.text) or any(f'"{name}"' in block.text for name in absent):
            continue
        with Program(sys.executable, "-c", block.text, cwd=folder, env={"PYTHONPATH": str(ROOT)}) as program:
            assert program.wait(30) == 0, f"{named(document)}:{block.line}:\n{program.output}"


@each_document
def test_console_blocks_give_what_they_show(
    document: Path, folder: Path, broker: Callable[[str], Broker], pytestconfig: pytest.Config
) -> None:
    names = wanted(pytestconfig)
    for block in blocks(document):
        if block.language != "console":
            continue
        for command, expected in commands(block):
            words = shlex.split(command)
            env = dict(word.split("=", 1) for word in words if re.match(r"EVENTKIT_\w+=", word))
            name = env.get("EVENTKIT_BROKER", "memory")
            if name not in names:
                continue
            if name != "memory":
                env |= {"EVENTKIT_URL": broker(name).url, "EVENTKIT_NAMESPACE": "readme"}
            where = f"{named(document)}:{block.line}: {command}"
            program = [word for word in words if word.partition("=")[0] not in env]
            run(program, env, folder, expected, where)


def run(words: list[str], env: dict[str, str], folder: Path, expected: list[str], where: str) -> None:
    runs_on = words[:2] == ["eventkit", "run"]
    start = {"python": [sys.executable], "eventkit": list(EVENTKIT)}
    assert words[0] in start, f"{where}: only python and eventkit are run here"
    with Program(*start[words[0]], *words[1:], env=env, cwd=folder) as program:
        if runs_on:
            for line in expected:
                program.wait_for(r"\s+".join(map(re.escape, line.split())))
            program.tell(signal.SIGTERM)
        assert program.wait(60) == 0, f"{where}:\n{program.output}"
        for line in expected:
            assert re.search(r"\s+".join(map(re.escape, line.split())), program.output), f"{where}:\n{program.output}"


def commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Each command with the lines that are shown below it."""
    command, shown = "", list[str]()
    for line in [*block.text.splitlines(), "$ "]:
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line[2:].strip(), []
        elif line.strip():
            shown.append(line)


@each_document
def test_what_sh_blocks_name_exists(document: Path) -> None:
    for block in blocks(document):
        if block.language == "sh":
            for script in re.findall(r"\./([\w./-]+)", block.text):
                assert (ROOT / script).exists(), f"{named(document)}:{block.line}: ./{script}"


@each_document
def test_extras_exist(document: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in re.findall(re.escape(project["name"]) + r"\[([\w,]+)\]", document.read_text(encoding="utf-8")):
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), extras


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{named(document)}: {target}"
