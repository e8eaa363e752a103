"""Declaring: what a handler's decorator and signature say, read and checked where it stands."""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from eventkit.batches import Batch
from eventkit.circuit import Circuit
from eventkit.clock import check_time
from eventkit.errors import DeclarationError
from eventkit.messages import Command, Event, Topic, routing
from eventkit.names import logical
from eventkit.once import OnceStore
from eventkit.parameters import Parameters, read
from eventkit.retry import Retry


@dataclass(frozen=True, slots=True, eq=False)
class Handler:
    """One declared handler."""

    name: str
    function: Callable[..., Any]
    parameters: Parameters
    group: str | None
    topic: Topic | None
    """All of this topic, for a handler of `Event` itself; for one of the topic's `default` class, that alone."""
    retry: Retry | None
    timeout: timedelta | None
    circuit: Circuit | None = None
    batch: Batch | None = None
    """It takes lists of messages; None: one at a time."""
    once: OnceStore | None = None
    """Knows what was handled, so that repeats are dropped; None: they are handled again."""

    @property
    def commands(self) -> bool:
        return issubclass(self.parameters.accepts[0], Command)


_NO_MESSAGES = (str, bytes, int, float, dict, set, BaseModel)


class Said(NamedTuple):
    """How a handler is to be run."""

    retry: Retry | None
    timeout: timedelta | None
    circuit: Circuit | None
    batch: Batch | None = None
    once: OnceStore | None = None


def declare(
    function: Callable[..., Any],
    local_names: Mapping[str, object],
    said: Said,
    *,
    group: str | None = None,
    topic: str | Topic | None = None,
) -> Handler:
    retry, timeout, circuit, batch, once = said
    name = getattr(function, "__qualname__", repr(function))
    parameters = read(function, local_names)
    if parameters.batch and batch is None:
        raise DeclarationError(
            f"{name}: an annotation of list[{_names(parameters)}] takes batches; say which: "
            "handler(batch=Batch(size=100, wait=timedelta(milliseconds=50)))"
        )
    if batch is not None and not parameters.batch:
        raise DeclarationError(
            f"{name}: batch= goes with a list as annotation, such as (events: list[{_names(parameters)}])"
        )
    everything = Event in parameters.accepts
    if isinstance(topic, str):
        topic = Topic(topic)
    if everything and (topic is None or len(parameters.accepts) > 1):
        raise DeclarationError(
            f'{name}: to handle all events of a topic, say which: handler(topic="orders") and Event alone'
        )
    if topic is not None and not everything and parameters.accepts != (topic.default,):
        raise DeclarationError(
            f"{name}: topic= goes with an annotation of Event itself; {_names(parameters)} says its own "
            "(topic=Topic(..., default=TheClass) takes what stands there without a type for that class)"
        )
    if group is not None and any(issubclass(accepted, Command) for accepted in parameters.accepts):
        raise DeclarationError(f"{name}: group= is for events; a command has one handler, in its owner's own group")
    check_timeout(name, timeout)
    if not everything:
        for accepted in parameters.accepts:
            routing(accepted)
    handler = Handler(
        name=name,
        function=function,
        parameters=parameters,
        group=None if group is None else logical(group, f"{name}: group"),
        topic=topic,
        retry=retry,
        timeout=timeout,
        circuit=circuit,
        batch=batch,
        once=once,
    )
    _check_reply(handler)
    _check_once(handler)
    return handler


def check_timeout(name: str, timeout: timedelta | None) -> None:
    """DeclarationError for a limit that no attempt can keep to."""
    if timeout is not None and check_time(f"{name}: timeout", timeout) <= timedelta(0):
        raise DeclarationError(f"{name}: timeout={timeout} must be longer than nothing; None is no limit")


def _check_once(handler: Handler) -> None:
    store = handler.once
    if store is None:
        return
    if handler.batch is not None:
        raise DeclarationError(
            f"{handler.name}: once= goes with a handler of single messages: of a batch some may be repeats and others "
            "not; leave batch= out, or keep the ids in your own transaction"
        )
    asynchronous = handler.parameters.is_async
    if store.session_of is not None and asynchronous != (store.session_of == "async"):
        raise DeclarationError(
            f"{handler.name}: {type(store).__name__} takes part in the transaction of "
            f"{'async' if store.session_of == 'async' else 'plain'} functions, and this is "
            f"{'an async' if asynchronous else 'a plain'} one; eventkit.sql has a store for each"
        )


def _check_reply(handler: Handler) -> None:
    if not handler.commands or handler.parameters.returns is inspect.Signature.empty:
        return
    for command in handler.parameters.accepts:
        reply: Any = routing(command).reply
        expected = list[reply] if handler.batch is not None else reply
        if reply is not None and _bare(handler.parameters.returns) != _bare(expected):
            raise DeclarationError(
                f"{handler.name}: {command.__name__} promises a reply of {_type_name(expected)}, "
                f"but the handler returns {_type_name(handler.parameters.returns)}"
            )


def check_returned(handler: Handler) -> None:
    """DeclarationError for a return annotation of what cannot be published, where nobody waits for a reply."""
    if handler.commands and any(routing(command).reply is not None for command in handler.parameters.accepts):
        return
    wrong = next(_never_sent(_bare(handler.parameters.returns)), None)
    if wrong is None:
        return
    first = handler.parameters.accepts[0].__name__
    reply = f" (or say that it is the reply: class {first}(Command[{wrong.__name__}], ...))" if handler.commands else ""
    raise DeclarationError(
        f"{handler.name} returns {wrong.__name__}: what a handler returns is published, so it is an event, a command, "
        f"a list of them, or None{reply}"
    )


def _never_sent(hint: Any) -> Iterator[type]:
    """The types in an annotation that surely are no messages."""
    if get_origin(hint) in (Union, types.UnionType, list, tuple):
        for member in get_args(hint):
            yield from _never_sent(member)
        return
    found = get_origin(hint) or hint
    if isinstance(found, type) and issubclass(found, _NO_MESSAGES) and not issubclass(found, Event | Command):
        yield found


def _bare(hint: Any) -> Any:
    """A type without what `Annotated` says of it, there and inside it: constraints are no other type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _bare(arguments[0])
    if not arguments or origin is Literal:
        return hint
    bare = tuple(_bare(argument) for argument in arguments)
    if origin is types.UnionType:
        return Union[bare]  # noqa: UP007 there is no other way to make one of many
    return hint if bare == arguments or origin is collections.abc.Callable else origin[bare]


def _names(parameters: Parameters) -> str:
    return ", ".join(accepted.__name__ for accepted in parameters.accepts)


def _type_name(hint: object) -> str:
    if hint is None or hint is type(None):
        return "None"
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(_type_name(member) for member in get_args(hint))
    return getattr(hint, "__name__", str(hint))
