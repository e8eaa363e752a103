"""Commands at the prompt: how each ended, and many of them in little time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.programs import environment

_EACH = """
import json, os, sys, tempfile
from eventkit.cli import app

for words in json.loads(sys.argv[1]):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            app(words, prog_name="eventkit")
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0), err.seek(0)
        print(json.dumps([code, out.read(), err.read()]), flush=True)
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        return self.err.splitlines()


def each(folder: Path, commands: Sequence[Sequence[str]], env: Mapping[str, str] | None = None) -> list[Done]:
    """Each in a process of its own, which need not import eventkit anew."""
    ended = subprocess.run(
        [sys.executable, "-c", _EACH, json.dumps(commands)],
        cwd=folder,
        env=environment(env),
        timeout=120,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        text=True,
    )
    return [Done(*json.loads(line)) for line in ended.stdout.splitlines()]
