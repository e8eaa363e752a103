"""An environment file: NAME=VALUE lines, read into this process's environment."""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from eventkit.errors import SettingsError


def load_environment(path: Path) -> None:
    """Set what the file says and the environment does not: what is set outside of the file stands.

    SettingsError where the file cannot be read, or a line is no `NAME=VALUE`; the line itself is not shown, for it may
    hold a password.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise SettingsError(f"--env-file {path} cannot be read: {reason}") from error
    for line in parse_stream(StringIO(text)):
        if line.error or (line.key is not None and line.value is None):
            raise SettingsError(f"--env-file {path}, line {line.original.line}: it is no NAME=VALUE")
    for name, value in dotenv_values(stream=StringIO(text)).items():
        if value is not None:
            os.environ.setdefault(name, value)
