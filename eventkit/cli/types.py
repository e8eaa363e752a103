"""Which message class a TYPE at the prompt means: of modules that are named, or found in the current folder."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, TypeAlias

import typer

from eventkit.cli import sources
from eventkit.cli.ending import fail
from eventkit.errors import DeclarationError
from eventkit.importing import NotLoaded, import_module
from eventkit.loading import load_services
from eventkit.messages import Command, Event, every_declared, routing

Verb: TypeAlias = Literal["publish", "send", "request"]
MessageClass: TypeAlias = type[Event] | type[Command[Any]]

_MOST = 40
"""Types that one line names."""


def complete(context: typer.Context, incomplete: str) -> list[str]:
    """What a shell offers for TYPE."""
    kind = "event" if context.info_name == "publish" else "command"
    found = {one.type for one in sources.messages(Path.cwd()) if one.kind == kind}
    return sorted(name for name in found if name.startswith(incomplete))


def _argument(example: str) -> Any:
    text = f"Such as {example}, as this folder or --from declares it; or shop.messages:{example}."
    return typer.Argument(metavar="TYPE", autocompletion=complete, help=text)


EventType = Annotated[Optional[str], _argument("OrderPlaced")]  # noqa: UP045
CommandType = Annotated[Optional[str], _argument("BookParcel")]  # noqa: UP045
From = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--from",
        metavar="MODULE[:SERVICE]",
        help="The module, or service, that TYPE is declared in. May be repeated. Default: this folder is searched.",
    ),
]


def find(verb: Verb, said: str | None, modules: Sequence[str]) -> MessageClass:
    """The class that is meant, of the kind that the verb takes. Ends the command where there is none."""
    sys.path[:0] = [str(root) for root in sources.import_roots(Path.cwd())]
    try:
        found = _named(said) if said and ":" in said else _of_modules(verb, said, modules) if modules else None
        cls = found or _of_folder(verb, said)
        routing(cls)
    except (NotLoaded, DeclarationError) as error:
        fail(str(error))
    if issubclass(cls, Event) != (verb == "publish"):
        fail(_other_verb(cls, said or cls.__name__))
    return cls


def located(said: str) -> MessageClass | None:
    """The class that a name means in the current folder, of whatever kind; None: it means none there."""
    if not any(said in (one.type, one.name) for one in known()):
        return None
    sys.path[:0] = [str(root) for root in sources.import_roots(Path.cwd())]
    try:
        cls = _of_folder("publish", said)
        routing(cls)
    except (NotLoaded, DeclarationError) as error:
        fail(str(error))
    return cls


def known() -> Sequence[sources.Declared]:
    """The message classes that the current folder declares."""
    return sources.messages(Path.cwd())


def _other_verb(cls: MessageClass, said: str) -> str:
    if issubclass(cls, Event):
        return f"{cls.__name__} is an event, which is published: eventkit publish {said}"
    return (
        f"{cls.__name__} is a command, which is sent to the service that owns it: eventkit send {said}, "
        f"or eventkit request {said} to wait for its reply"
    )


def _named(said: str) -> MessageClass:
    """By module and class."""
    name, _, path = said.partition(":")
    if not name or not path:
        raise NotLoaded(f"{said!r} names no message: write OrderPlaced, or shop.messages:OrderPlaced")
    module = import_module(name)
    value: object = module
    for word in path.split("."):
        value = getattr(value, word, None)
    if isinstance(value, type) and issubclass(value, Event | Command):
        return value
    there = [f"{name}:{cls.__qualname__}" for cls in _declared() if cls.__module__ == module.__name__]
    what = f"there is no {path!r} in {name}" if value is None else f"{said} is no event or command"
    raise NotLoaded(f"{what}{_instead(said, there)}")


def _of_modules(verb: Verb, said: str | None, modules: Sequence[str]) -> MessageClass:
    """By its name, of those that these modules declare or import."""
    names = []
    for module in modules:
        names.append(module.partition(":")[0])
        if ":" in module:
            load_services([module])
        else:
            import_module(module)
    classes = list(_declared())
    if said is None:
        raise NotLoaded(_unsaid(verb, [_type(cls) for cls in classes if issubclass(cls, Event) == (verb == "publish")]))
    wanted = [cls for cls in classes if said in (_type(cls), cls.__qualname__)]
    there = [vars(sys.modules[name]).values() for name in names]
    wanted = [cls for cls in wanted if any(cls is value for values in there for value in values)] or wanted
    if not wanted:
        raise NotLoaded(f"{' and '.join(names)}: there is no message {said!r}{_instead(said, map(_type, classes))}")
    one: MessageClass = _only(said, {f"{cls.__module__}:{cls.__qualname__}": cls for cls in wanted})
    return one


def _of_folder(verb: Verb, said: str | None) -> MessageClass:
    """By its name, of those that the current folder's sources declare; only its own module is imported."""
    found = known()
    if said is None:
        raise NotLoaded(_unsaid(verb, [one.type for one in found if (one.kind == "event") == (verb == "publish")]))
    wanted = {f"{one.module}:{one.name}": one for one in found if said in (one.type, one.name)}
    if not wanted:
        raise NotLoaded(f"no message {said!r} is declared in this folder{_instead(said, [one.type for one in found])}")
    one = _only(said, wanted)
    return _named(f"{one.module}:{one.name}")


def _only(said: str, wanted: dict[str, Any]) -> Any:
    if len(wanted) > 1:
        raise NotLoaded(f"there is more than one {said}: say which, {' or '.join(sorted(wanted))}")
    return next(iter(wanted.values()))


def _unsaid(verb: Verb, types: Sequence[str]) -> str:
    kind = "event" if verb == "publish" else "command"
    if not types:
        return f"say which {kind}: eventkit {verb} shop.messages:OrderPlaced, or its name with --from shop.messages"
    return f"say which {kind} to {verb}: {_list(sorted(set(types)))}"


def _instead(said: str, types: Iterable[str]) -> str:
    """The nearest first, then all others."""
    names = sorted(set(types))
    if not names:
        return ": say where its class is, with --from shop.messages, or as shop.messages:OrderPlaced"
    near = difflib.get_close_matches(said, names, n=3)
    hint = f"; did you mean {near[0]}?" if near else ";"
    return f"{hint} known here: {_list([*near, *(name for name in names if name not in near)])}"


def _list(names: Sequence[str]) -> str:
    more = len(names) - _MOST
    return ", ".join(names[:_MOST]) + (f" and {more} more" if more > 0 else "")


def _declared() -> Iterator[MessageClass]:
    """All that can be published or sent, of the modules that are imported."""
    return (cls for cls, _ in every_declared() if "[" not in cls.__qualname__)


def _type(cls: MessageClass) -> str:
    return routing(cls).type
