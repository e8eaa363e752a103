"""Importing: a user's module by its name; what is wrong with it in one line, with the user's own frames."""

from __future__ import annotations

import importlib
import os
import re
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from eventkit.errors import DeclarationError

_NOT_THEIRS = tuple(
    os.path.realpath(path) + os.sep
    for path in (
        *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
        str(Path(__file__).parent),
    )
)
_MOST_FRAMES = 5
_ADVICE = re.compile(r"For further information visit \S+")


class NotLoaded(Exception):
    """There is no such service or message, or its module cannot be imported. Says what there is instead."""


def import_module(name: str) -> ModuleType:
    """The module, looked for on `sys.path`. NotLoaded says in one line why there is none."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise NotLoaded(
                f"there is no module {error.name!r} here; it is looked for from the current folder"
            ) from error
        raise _not_imported(name, error) from error
    except DeclarationError as error:
        raise NotLoaded(f"{error} ({_place(error)})") from error
    except SyntaxError as error:
        where = f" ({_shown(error.filename)}:{error.lineno})" if error.filename else ""
        raise NotLoaded(f"{name} cannot be imported: {type(error).__name__}: {error.msg}{where}") from error
    except (Exception, SystemExit) as error:
        raise _not_imported(name, error) from error


def _not_imported(name: str, error: BaseException) -> NotLoaded:
    # pydantic goes on about its own internals, and its website
    said = " ".join(_ADVICE.sub("", str(error).partition("\n\n")[0]).split())
    kind = type(error).__name__
    return NotLoaded(f"{name} cannot be imported: {kind}{f': {said}' if said else ''} ({_place(error)})")


def _place(error: BaseException) -> str:
    """The way through the user's code to where it was raised, the innermost line last."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    theirs = [frame for frame in frames if not os.path.realpath(frame.filename).startswith(_NOT_THEIRS)]
    return " > ".join(_frames(theirs or frames[-1:])) or "in eventkit"


def _frames(frames: Sequence[traceback.FrameSummary]) -> Sequence[str]:
    lines = [f"{_shown(frame.filename)}:{frame.lineno}" for frame in frames]
    return lines if len(lines) <= _MOST_FRAMES else [lines[0], "...", *lines[1 - _MOST_FRAMES :]]


def _shown(file: str) -> str:
    """As short as a person can open it from here."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file
