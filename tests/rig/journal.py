"""What each process writes of itself: a file that it alone appends to, a line at a time, for the checker to read.

A line is handed to the kernel when it is written, so that it outlives a process that is killed right after.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """One line: `1764056325.123456 ended rig ordered p1.2-0 17`."""

    life: str
    """The process that wrote it: `replica-1.3` is the third life of the first replica."""
    time: float
    """By the machine's clock, which all processes of a run share."""
    word: str
    rest: tuple[str, ...]


class Journal:
    """Writes one process's file."""

    def __init__(self, folder: Path, life: str) -> None:
        self._file = os.open(folder / f"{life}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, word: str, *rest: object) -> None:
        os.write(self._file, f"{time.time():.6f} {word} {' '.join(map(str, rest))}\n".encode())


class Reader:
    """Reads the files of all processes, each as far as it has got."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def news(self) -> Iterator[Entry]:
        """What was written since the last call. A line that is cut off by a kill was never finished, and is none."""
        for file in sorted(self._folder.glob("*.log")):
            at = self._read.get(file, 0)
            with file.open("rb") as opened:
                opened.seek(at)
                text = opened.read()
            whole = text.rfind(b"\n") + 1
            self._read[file] = at + whole
            for line in text[:whole].decode().splitlines():
                when, word, *rest = line.split()
                yield Entry(file.stem, float(when), word, tuple(rest))
