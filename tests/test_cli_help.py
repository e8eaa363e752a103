"""Help that teaches: examples under each command, which are right; and completion in a real shell."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from eventkit.cli import app
from eventkit.cli.examples import EXAMPLES
from tests.programs import EVENTKIT, Program, environment

WIDE = {"COLUMNS": "200", "TERM": "dumb"}


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    yield " ".join(path)
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Help looks for types in the current folder: not in all of this repository."""
    monkeypatch.chdir(tmp_path)


ALL = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("command", ALL)
def test_each_help_has_examples(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"], env=WIDE)
    assert shown.exit_code == 0
    assert EXAMPLES.get(command), f"eventkit {command}: write examples into eventkit/cli/examples.py"
    for example in EXAMPLES[command]:
        assert example in shown.output


def test_help_and_the_release_as_one_asks_for_them() -> None:
    ask = lambda *words: CliRunner().invoke(app, words, env=WIDE)  # noqa: E731
    assert ask("publish", "-h").output == ask("publish", "--help").output
    assert ask("--version").output == f"eventkit {version('faststream-eventkit')}\n"
    for verb, example in (("publish", "OrderPlaced"), ("send", "BookParcel"), ("request", "BookParcel")):
        assert f"Such as {example}, as" in ask(verb, "-h").output


def test_no_examples_of_what_is_not_there() -> None:
    assert set(EXAMPLES) <= set(ALL)


@pytest.mark.parametrize(
    "example",
    sorted({line for examples in EXAMPLES.values() for line in examples if "--install-completion" not in line}),
)
def test_each_example_is_a_command_with_options_that_exist(example: str) -> None:
    words = shlex.split(example.rpartition("| ")[2].partition(" > ")[0], comments=True)
    words = words[words.index("eventkit") + 1 :]
    shown = CliRunner().invoke(app, [*words, "--help"], env=WIDE)
    assert shown.exit_code == 0, shown.output
    path = next(name for name in sorted(ALL, key=len, reverse=True) if words[: len(name.split())] == name.split())
    assert f" {path} [" in shown.output


def test_help_as_a_process_lists_the_types_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "import eventkit\nclass Paid(eventkit.Event, topic='a'): ...\nclass Pay(eventkit.Command, service='b'): ...\n"
    )
    for verb, listed in (("publish", "Events of this folder: Paid"), ("send", "Commands of this folder: Pay")):
        with Program(*EVENTKIT, verb, "--help", cwd=tmp_path, env=WIDE) as program:
            assert program.wait() == 0
            assert re.search(rf"{listed}\s*$", program.output), program.output


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_completion_in_bash(tmp_path: Path) -> None:
    """Installed as a person does it, in a home of its own."""
    (tmp_path / "shop.py").write_text(
        "import eventkit\nclass OrderPaid(eventkit.Event, topic='a'): ...\n"
        "class Pay(eventkit.Command, service='b'): ...\n"
    )
    (tmp_path / "asking.sh").write_text(
        "eventkit --install-completion || exit 9\n"
        "source ~/.bashrc\n"
        'ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMPREPLY=(); _eventkit_completion eventkit; '
        'echo "got: ${COMPREPLY[*]}"; }\n'
        "ask eventkit pub\nask eventkit publish Ord\nask eventkit send P\nask eventkit publish OrderPaid x --corr\n"
        "ask eventkit dead-letters dis\n"
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ended = subprocess.run(
        ["bash", "--norc", "asking.sh"],
        cwd=tmp_path,
        env={**environment({"PATH": path}), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended
    assert "bash completion installed in" in ended.stdout
    answers = [line.removeprefix("got: ") for line in ended.stdout.splitlines() if line.startswith("got: ")]
    assert answers == ["publish", "OrderPaid", "Pay", "--correlation-id", "discard"], ended
