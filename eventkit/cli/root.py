"""The root of the command line: examples in every help, `--debug`, and one line for what nobody foresaw."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from eventkit.cli.examples import EXAMPLES

_DEBUG = "--debug"
_WRAPPED = re.compile(r"(?<!\n)\n(?!\n)")


class Root(TyperGroup):
    """Commands whose failures are one line, and a trace besides with `--debug`, wherever that stands."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **keywords: Any) -> Any:
        _teach(self, ())
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        head = [word for word in given[:end] if word != _DEBUG]
        # said before the command, where click knows it
        debug = [_DEBUG] if len(head) < end else []
        return super().main([*debug, *head, *given[end:]], *rest, **keywords)

    def invoke(self, ctx: Any) -> Any:
        debug = bool(ctx.params.get("debug"))
        try:
            return super().invoke(ctx)
        except typer.Exit as ended:
            if debug and ended.__context__ is not None and not ended.__suppress_context__:
                traceback.print_exception(ended.__context__)
            raise
        except (typer.Abort, BrokenPipeError, EOFError):
            raise
        except Exception as error:
            if _is_usage(error):
                raise
            if debug:
                traceback.print_exc()
            said = " ".join(str(error).split())
            frame = traceback.extract_tb(error.__traceback__)[-1]
            typer.echo(
                f"eventkit: unexpected {type(error).__name__}{f': {said}' if said else ''} "
                f"({frame.filename}:{frame.lineno}); {_DEBUG} shows the whole way there",
                err=True,
            )
            raise typer.Exit(1) from None


def _is_usage(error: Exception) -> bool:
    """Is it typer's own, which it shows by itself? It has had a copy of click inside since 0.20."""
    return hasattr(error, "exit_code") and hasattr(error, "format_message")


def _teach(command: Any, path: tuple[str, ...]) -> None:
    """Help as it is shown: unwrapped, with examples under it."""
    for name, inner in getattr(command, "commands", {}).items():
        _teach(inner, (*path, name))
    examples = EXAMPLES.get(" ".join(path))
    if command.help:
        command.help = _WRAPPED.sub(" ", command.help)  # the terminal wraps it, at its own width
    if examples and isinstance(command, TyperCommand | TyperGroup):
        command.epilog = "\n\n".join(["Examples:", *examples])
