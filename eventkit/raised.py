"""Where an exception was raised, in a few characters for a line of a log."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

_LIBRARIES = tuple(
    {
        f"{folder}{os.sep}"
        for folder in (*(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), Path(__file__).parent)
    }
)


def place(error: BaseException) -> str:
    """The innermost line of the program's own code, such as `shop/payments.py:42`; empty where there is none.

    Libraries, Python's own among them, are passed by: the line that called them is the one to look at.
    """
    found = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(("<", *_LIBRARIES)):
            found = f"{_shown(file)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _shown(file: str) -> str:
    """As it is seen from where the process runs, if it is below."""
    try:
        below = os.path.relpath(file)
    except (OSError, ValueError):  # the folder is gone; another drive
        return file
    return file if below.startswith(os.pardir) else below
