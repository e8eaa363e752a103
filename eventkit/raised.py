"""Where an exception was raised, in a few characters for a line of a log."""

from __future__ import annotations

import linecache
import os
import re
import sysconfig
from pathlib import Path

_LIBRARIES = tuple(
    {
        f"{folder}{os.sep}"
        for folder in (*(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), Path(__file__).parent)
    }
)
_awaits_none = re.compile(r"NoneType.*await").search
_collects = re.compile(r"\bawait\b.*\.(publish|send)\(").search


def place(error: BaseException) -> str:
    """The innermost line of the program's own code, such as `shop/payments.py:42`, with what to mend there, where that
    is known; empty where there is none.

    Libraries, Python's own among them, are passed by: the line that called them is the one to look at.
    """
    found = None
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(("<", *_LIBRARIES)):
            found = file, trace.tb_lineno
        trace = trace.tb_next
    return "" if found is None else f"{_shown(found[0])}:{found[1]}{_mend(error, *found)}"


def _mend(error: BaseException, file: str, line: int) -> str:
    """Of `Bus.publish` and `Context.publish` only one is awaited, and Python does not say which."""
    if isinstance(error, TypeError) and _awaits_none(str(error)) and _collects(linecache.getline(file, line)):
        return ": publish and send of a Context only collect; leave `await` out"
    return ""


def _shown(file: str) -> str:
    """As it is seen from where the process runs, if it is below."""
    try:
        below = os.path.relpath(file)
    except (OSError, ValueError):  # the folder is gone; another drive
        return file
    return file if below.startswith(os.pardir) else below
