"""What the parameters of a handler mean: the message, `Context`, the lifespan's value, `Depends`."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from fast_depends import Depends, Provider
from fast_depends.core import CallModel, build_call_model
from fast_depends.dependencies import Dependant
from pydantic import BaseModel

from eventkit.context import Context
from eventkit.errors import DeclarationError
from eventkit.messages import Command, Event

__all__ = ["Depends", "Parameters", "read"]

_CONTEXT = "context"


@dataclass(frozen=True, slots=True)
class Parameters:
    """How to call one handler."""

    message: str
    accepts: tuple[type[Event | Command[Any]], ...]
    """The classes of the first parameter's annotation; `Event` alone means all of a topic."""
    context: str | None
    others: Mapping[str, object]
    """Parameters that must come from the lifespan, by name, with their annotation."""
    dependencies: CallModel | None
    returns: object
    """The return annotation; `inspect.Signature.empty` where there is none."""
    is_async: bool
    batch: bool = False
    """Takes a list of messages, and a list of contexts."""

    @property
    def simple(self) -> bool:
        """Takes the message and nothing else."""
        return self.context is None and not self.others and self.dependencies is None

    async def solve(self, stack: AsyncExitStack, given: Mapping[str, object], context: Context) -> dict[str, Any]:
        """All arguments but the message; the dependencies are torn down with `stack`."""
        assert self.dependencies is not None
        arguments: dict[str, Any] = {_CONTEXT: context, **given}
        solved: dict[str, Any] = await self.dependencies.asolve(stack=stack, cache_dependencies={}, **arguments)
        return solved


def read(function: Callable[..., Any], local_names: Mapping[str, object]) -> Parameters:
    """Read a handler's signature. DeclarationError names the handler, the parameter and what would be right."""
    name = getattr(function, "__qualname__", repr(function))
    signature = inspect.signature(function)
    hints = _hints(function, name, local_names)
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise DeclarationError(f"{name}: a handler's first parameter is its message, such as (event: OrderPlaced)")
    first = parameters[0]
    hint = hints.get(first.name)
    batch = get_origin(hint) is list
    accepts = _accepts(get_args(hint)[0] if batch else hint, name, first.name)
    context = None
    others: dict[str, object] = {}
    injected = False
    for parameter in parameters[1:]:
        hint = hints.get(parameter.name, inspect.Parameter.empty)
        if hint == (list[Context] if batch else Context):
            context = parameter.name
        elif hint in (Context, list[Context]):
            right = "list[Context], one for each message of the batch" if batch else "Context"
            raise DeclarationError(f"{name}: parameter {parameter.name!r} should be annotated {right}")
        elif _depends(parameter, hint):
            injected = True
        elif hint is inspect.Parameter.empty:
            raise DeclarationError(
                f"{name}: parameter {parameter.name!r} has no annotation, so nothing can be given to it"
            )
        else:
            others[parameter.name] = hint
    return Parameters(
        message=first.name,
        accepts=accepts,
        context=context,
        others=others,
        dependencies=_dependencies(function, signature, hints, {first.name, context}) if injected else None,
        returns=hints.get("return", inspect.Signature.empty),
        is_async=inspect.iscoroutinefunction(function)
        or inspect.iscoroutinefunction(getattr(function, "__call__", None)),  # noqa: B004 an object with async __call__
        batch=batch,
    )


def _hints(function: Callable[..., Any], name: str, local_names: Mapping[str, object]) -> dict[str, Any]:
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        return typing.get_type_hints(target, localns=dict(local_names), include_extras=True)
    except NameError as error:
        raise DeclarationError(f"{name}: cannot read its annotations: {error}. Import that name at run time") from error


def _accepts(hint: object, handler: str, parameter: str) -> tuple[type[Event | Command[Any]], ...]:
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for member in members:
        if not (isinstance(member, type) and issubclass(member, Event | Command)):
            said = f"{handler}: its first parameter {parameter!r} is annotated {_shown(hint)}"
            if isinstance(member, type) and issubclass(member, BaseModel):
                raise DeclarationError(
                    f"{said}, and {member.__name__} is no message: derive it from eventkit.Event or eventkit.Command"
                )
            raise DeclarationError(
                f"{said}; annotate it with the Event or Command class (or a union of them) that it handles"
            )
    accepts = typing.cast("tuple[type[Event | Command[Any]], ...]", members)
    if len({issubclass(accepted, Event) for accepted in accepts}) > 1:
        raise DeclarationError(f"{handler}: handles events and commands at once; write one handler for each")
    return accepts


def _depends(parameter: inspect.Parameter, hint: object) -> bool:
    extras = getattr(hint, "__metadata__", ())
    return isinstance(parameter.default, Dependant) or any(isinstance(extra, Dependant) for extra in extras)


def _dependencies(
    function: Callable[..., Any], signature: inspect.Signature, hints: Mapping[str, Any], ours: Collection[str | None]
) -> CallModel:
    """FastDepends' model of a stand-in that has the handler's parameters and gives the solved arguments back."""

    def gather(**arguments: object) -> dict[str, object]:
        return arguments

    parameters = [
        parameter.replace(annotation=hints.get(parameter.name, Any), kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in signature.parameters.values()
        if parameter.name not in ours
    ]
    gather.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    gather.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    gather.__name__ = getattr(function, "__name__", "handler")
    return build_call_model(gather, dependency_provider=Provider(), serializer_cls=None, is_sync=False)


def _shown(hint: object) -> str:
    return "nothing" if hint is None else getattr(hint, "__name__", str(hint))


def caller_names(depth: int) -> Mapping[str, object]:
    """The local names where a decorator stands, so that message classes declared inside a function are found."""
    frame = sys._getframe(depth + 1)  # noqa: SLF001 there is no public way that is as cheap
    return frame.f_locals
