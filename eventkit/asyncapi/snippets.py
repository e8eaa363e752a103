"""Ready snippets that publish a message, in Python and at a prompt (pure)."""

from __future__ import annotations

import json
import shlex
from typing import Any

from eventkit.messages import Command, Event, every_declared

_UNKNOWN = "your_service.messages"


def class_of(kind: str, owner: str, type_: str) -> tuple[str, str]:
    """Module and name of the class of this process with that wire name. `owner`: its topic, or for a command its
    service. A module to fill in, where there is none or more than one."""
    base: type = Event if kind == "event" else Command
    found = {
        (cls.__module__, cls.__qualname__)
        for cls, route in every_declared()
        if issubclass(cls, base)
        and route.type == type_
        and owner in (route.service, route.topic.name if route.topic else None)
        and "[" not in cls.__qualname__
    }
    return found.pop() if len(found) == 1 else (_UNKNOWN, type_)


def in_python(kind: str, module: str, name: str, payload: Any, answers: bool) -> str:
    """A script that publishes an event, sends a command, or asks for its reply."""
    verb = "publish" if kind == "event" else "request" if answers else "send"
    call = f"await bus.{verb}({kind})"
    return (
        f"import asyncio\n\nimport eventkit\nfrom {module} import {_first(name)}\n\n"
        f"{kind} = {name}.model_validate({_literal(payload)})\n\n\nasync def main() -> None:\n"
        f"    async with eventkit.connect() as bus:\n        {f'print({call})' if verb == 'request' else call}\n\n\n"
        "asyncio.run(main())\n"
    )


def at_prompt(kind: str, module: str, name: str, payload: Any, answers: bool) -> str:
    """A command line that does the same."""
    verb = "publish" if kind == "event" else "request" if answers else "send"
    return f"eventkit {verb} {module}:{name} {shlex.quote(json.dumps(payload, ensure_ascii=False))}\n"


def _first(name: str) -> str:
    """What to import for a class that may be nested in another."""
    return name.partition(".")[0]


def _literal(value: Any, depth: int = 0) -> str:
    """As a person writes it in Python: a line for each item, but where there is only one."""
    inside, end = "    " * (depth + 1), "    " * depth
    if isinstance(value, dict):
        items = [f"{_literal(key)}: {_literal(item, depth + 1)}" for key, item in value.items()]
        opened, closed = "{", "}"
    elif isinstance(value, list):
        items, opened, closed = [_literal(item, depth + 1) for item in value], "[", "]"
    else:
        return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    if len(items) < 2 and "\n" not in "".join(items):
        return f"{opened}{''.join(items)}{closed}"
    return f"{opened}\n" + "".join(f"{inside}{item},\n" for item in items) + f"{end}{closed}"
