"""The public interface is typed: right uses (`api.py`) are accepted, wrong ones (`wrong.py`) are refused.

A wrong use that is no longer refused leaves an ignore that is not needed, which is an error. pyright does the same in
the session `typing`.
"""

from __future__ import annotations

import subprocess
import sys

from tests.programs import ROOT


def test_mypy_accepts_right_uses_and_refuses_wrong_ones() -> None:
    files = ["tests/typing/api.py", "tests/typing/wrong.py"]
    command = [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)
    ours = [line for line in done.stdout.splitlines() if line.startswith("tests/typing/")]
    assert not ours, done.stdout
    assert done.stdout.startswith("Success") or ": error: " in done.stdout, done.stdout + done.stderr
