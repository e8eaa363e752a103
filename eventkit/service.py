"""Service, Router and the handler decorators: declarations only. No connection is opened, no environment read."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import (
    Annotated,
    Any,
    Concatenate,
    Literal,
    NamedTuple,
    ParamSpec,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    overload,
)

from eventkit.adapter import Address, Delivery, Group, Start
from eventkit.batches import Batch
from eventkit.circuit import Circuit
from eventkit.context import Outgoing
from eventkit.errors import DeclarationError
from eventkit.messages import Command, Event, Topic, routing
from eventkit.names import logical
from eventkit.once import OnceStore
from eventkit.parameters import Parameters, caller_names, read
from eventkit.retry import Retry
from eventkit.wire import Serializer, destination

P = ParamSpec("P")
Out = TypeVar("Out")
Msg = TypeVar("Msg", bound=Event | Command[Any])
R = TypeVar("R")

CallNext: TypeAlias = Callable[[Delivery], Awaitable[object]]
Middleware: TypeAlias = Callable[[Delivery, CallNext], Awaitable[object]]
"""One function around the handler call: `async def timed(delivery, call_next): ... return await call_next(delivery)`.

The delivery is for reading: its headers cannot be changed, and the handler gets its own content and `Context` whatever
is passed on. What it returns takes the place of what the handler returned; what it raises is the handler's failure, and
`Reject`, `GiveUp` and `RetryLater` mean what they mean in a handler. `call_next` may be called once, or not at all:
then the handler does not run, and the message is finished all the same. See docs/middleware.md."""
OutgoingMiddleware: TypeAlias = Callable[[Outgoing, Delivery], Outgoing]
"""One function over each message that a handler sends: `def stamped(outgoing, delivery): return
outgoing._replace(...)`.

It gets what is to go out (the message, its own headers, its delay) and the delivery that was handled, and gives what
goes out instead. It must give the same each time it is asked, since a message that is handled again sends the same
again. What it raises makes that message `unsendable`: a dead letter. See docs/middleware.md."""
Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]


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


class _Said(NamedTuple):
    """How a handler is to be run."""

    retry: Retry | None
    timeout: timedelta | None
    circuit: Circuit | None
    batch: Batch | None = None
    once: OnceStore | None = None


class Router:
    """Handlers declared in a module of their own: `service.include(router)` adds them to a service."""

    def __init__(self) -> None:
        self._handlers: list[Handler] = []

    @property
    def handlers(self) -> Sequence[Handler]:
        return tuple(self._handlers)

    @overload
    def handler(self, function: Callable[Concatenate[Msg, P], Out], /) -> Callable[Concatenate[Msg, P], Out]: ...
    @overload
    def handler(
        self,
        *,
        group: str | None = None,
        topic: str | Topic | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        circuit: Circuit | None = None,
        once: OnceStore | None = None,
    ) -> Callable[[Callable[Concatenate[Msg, P], Out]], Callable[Concatenate[Msg, P], Out]]: ...
    @overload
    def handler(
        self,
        *,
        batch: Batch,
        group: str | None = None,
        topic: str | Topic | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        circuit: Circuit | None = None,
    ) -> Callable[[Callable[Concatenate[list[Msg], P], Out]], Callable[Concatenate[list[Msg], P], Out]]: ...
    def handler(
        self,
        function: Callable[..., Any] | None = None,
        *,
        group: str | None = None,
        topic: str | Topic | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        circuit: Circuit | None = None,
        batch: Batch | None = None,
        once: OnceStore | None = None,
    ) -> Callable[..., Any]:
        """Declare a handler: the annotation of its first parameter is the subscription.

        `group` opens a second, independent group of the service, `<service>.<group>` (events only). `topic` goes with
        an annotation of `Event` itself: all events of that topic. `retry` and `timeout` (of one attempt) override the
        service's. `circuit`: it rests while all that it tries fails, see `Circuit`. `batch` goes with an annotation of
        `list[OrderPlaced]`: many messages at once, see `Batch`. `once` drops repeats of a message that was handled,
        which this store remembers: see `eventkit.once`, and `eventkit.sql` for your own transaction. Plain functions
        run in threads of their own. DeclarationError for anything that cannot work.
        """
        local_names = caller_names(1)

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            said = _Said(retry, timeout, circuit, batch, once)
            self._add(_declare(function, local_names, said, group=group, topic=topic))
            return function

        return register if function is None else register(function)

    def handles(
        self,
        command: type[Command[R]],
        *,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        circuit: Circuit | None = None,
        once: OnceStore | None = None,
    ) -> Callable[[Callable[Concatenate[Any, P], Awaitable[R] | R]], Callable[Concatenate[Any, P], Awaitable[R] | R]]:
        """As `handler`, for one command: type checkers then compare what the function returns with the reply."""
        local_names = caller_names(1)

        def register(
            function: Callable[Concatenate[Any, P], Awaitable[R] | R],
        ) -> Callable[Concatenate[Any, P], Awaitable[R] | R]:
            handler = _declare(function, local_names, _Said(retry, timeout, circuit, once=once))
            if handler.parameters.accepts != (command,):
                raise DeclarationError(
                    f"{handler.name}: declared to handle {command.__name__}, but its parameter says "
                    f"{', '.join(accepted.__name__ for accepted in handler.parameters.accepts)}"
                )
            self._add(handler)
            return function

        return register

    def include(self, router: Router) -> None:
        """Add all handlers that the router has now."""
        for handler in router.handlers:
            self._add(handler)

    def _add(self, handler: Handler) -> None:
        taken = _taken(self._handlers)
        for accepted in handler.parameters.accepts:
            first = taken.get((handler.group, _wire_name(handler, accepted)))
            if first is not None and first is not handler:
                raise DeclarationError(
                    f"{handler.name}: {accepted.__name__} already has a handler here, {first.name}; "
                    "inside a group a message type has exactly one (group='...' opens another for events)"
                )
        self._handlers.append(handler)


class Service(Router):
    """What is deployed. Its name is its group: replicas share the work, other services get their own copy.

    `lifespan` is an async context manager around the time it runs; handlers take what it yields by a parameter of the
    type that its return annotation names. `concurrency` is how many messages are handled at once (per replica and
    group). `middleware` goes around each handler call, the first outermost. `retry` and `timeout` (of one attempt;
    None: no limit) are for handlers that say none. `start` is where its groups begin when they are new: "now", or
    "earliest" where the broker can. `quarantine_after` is how often a process may die with a message in hand until
    that is a dead letter, `quarantined`: the last half of these times it runs alone in its process, so that no other
    is blamed, and out of its key's order. Stops and deploys do not count. None: never. `stop_timeout` is how long a
    stop waits for running handlers. `order_across_replicas`: messages of one key keep their order also while several
    replicas run; False: only inside each replica. Where the broker cannot keep it, the start raises
    CapabilityNotSupported: see the table of guarantees.

    `outgoing` goes over each message that its handlers send, one after the other, in the order given. `serializer` is
    for bodies of messages whose class names none: what its handlers send and reply, and what they read (JSON they read
    besides). None: the bus's. `publishes` says, for the AsyncAPI document, which messages it sends besides those that
    its handlers' return annotations name: through `Context.publish`, with a `Reject`, by a bus of its own.
    """

    def __init__(  # noqa: PLR0913 each is a setting that has a name and a default
        self,
        name: str,
        *,
        lifespan: Lifespan | None = None,
        concurrency: int = 32,
        middleware: Sequence[Middleware] = (),
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        start: Start = "now",
        quarantine_after: int | None = 5,
        stop_timeout: timedelta = timedelta(seconds=20),
        order_across_replicas: bool = False,
        outgoing: Sequence[OutgoingMiddleware] = (),
        serializer: Serializer | None = None,
        publishes: Sequence[type[Event | Command[Any]]] = (),
    ) -> None:
        super().__init__()
        self.name = logical(name, f"Service({name!r})")
        if concurrency < 1:
            raise DeclarationError(f"Service({name!r}): concurrency={concurrency}; 1 is the least")
        if start not in ("now", "earliest"):
            raise DeclarationError(f"Service({name!r}): start={start!r}; it is 'now' or 'earliest'")
        self.lifespan = lifespan
        self.concurrency = concurrency
        self.middleware = tuple(middleware)
        self.retry = retry or Retry()
        self.timeout = timeout
        if quarantine_after is not None and quarantine_after < 2:
            raise DeclarationError(
                f"Service({name!r}): quarantine_after={quarantine_after}; 2 is the least, None never quarantines"
            )
        self.start: Start = start
        self.quarantine_after = quarantine_after
        self.stop_timeout = stop_timeout
        self.order_across_replicas = order_across_replicas
        self.outgoing = tuple(outgoing)
        self.serializer = serializer
        self.publishes = tuple(dict.fromkeys(publishes))
        self._check_functions()
        for message in self.publishes:
            if not isinstance(message, type):
                raise DeclarationError(f"Service({name!r}): publishes= takes message classes, not {message!r}")
            routing(message)
        self._yields = _yielded(lifespan)

    def __repr__(self) -> str:
        return f"Service({self.name!r}, {len(self._handlers)} handlers)"

    def _check_functions(self) -> None:
        """What would otherwise fail at the first message."""
        for function in self.middleware:
            if inspect.isfunction(function) and not inspect.iscoroutinefunction(function):
                raise DeclarationError(
                    f"Service({self.name!r}): the middleware {function.__qualname__} is no coroutine: write it as "
                    "`async def`, and return await call_next(delivery)"
                )
        for change in self.outgoing:
            if inspect.iscoroutinefunction(change):
                raise DeclarationError(
                    f"Service({self.name!r}): {change.__qualname__} in outgoing= is a coroutine: write it as `def`, "
                    "it is to compute and to wait for nothing"
                )

    def _add(self, handler: Handler) -> None:
        if handler.commands:
            for command in handler.parameters.accepts:
                owner = routing(command).service
                if owner != self.name:
                    raise DeclarationError(
                        f"{handler.name}: {command.__name__} belongs to the service {owner!r}, not to {self.name!r}; "
                        "only its owner handles a command"
                    )
        for parameter, hint in handler.parameters.others.items():
            if hint != self._yields:
                raise DeclarationError(
                    f"{handler.name}: nothing can be given to parameter {parameter!r}: it is no Context, no "
                    f"Depends(...), and the lifespan of {self.name!r} yields "
                    f"{'nothing that its annotation names' if self._yields is None else self._yields}"
                )
        super()._add(handler)

    def groups(self) -> dict[str, tuple[Group, Sequence[Handler]]]:
        """The groups that its handlers make, by name, each with its handlers."""
        members: dict[str, list[Handler]] = {}
        for handler in self._handlers:
            name = self.name if handler.group is None else f"{self.name}.{handler.group}"
            members.setdefault(name, []).append(handler)
        return {
            name: (
                Group(name, tuple(dict.fromkeys(source for h in handlers for source in _sources(h))), self.start),
                handlers,
            )
            for name, handlers in members.items()
        }


def _declare(
    function: Callable[..., Any],
    local_names: Mapping[str, object],
    said: _Said,
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
    if timeout is not None and timeout <= timedelta(0):
        raise DeclarationError(f"{name}: timeout={timeout} must be longer than nothing; None is no limit")
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


def _sources(handler: Handler) -> Sequence[Address]:
    if handler.topic is not None:
        return (Address("topic", handler.topic.name, handler.topic.physical),)
    return [destination(routing(accepted)) for accepted in handler.parameters.accepts]


def _taken(handlers: Sequence[Handler]) -> dict[tuple[str | None, str], Handler]:
    return {(h.group, _wire_name(h, accepted)): h for h in handlers for accepted in h.parameters.accepts}


def _wire_name(handler: Handler, accepted: type[Event | Command[Any]]) -> str:
    """What tells types apart in a group: the address and the wire name."""
    if handler.topic is not None:
        return f"topic:{handler.topic.name} {'*' if accepted is Event else routing(accepted).type}"
    route = routing(accepted)
    return f"{destination(route)} {route.type}"


def _yielded(lifespan: Lifespan | None) -> object:
    """The type that a lifespan yields, by its annotation; None: it does not say."""
    if lifespan is None:
        return None
    function = inspect.unwrap(lifespan)
    try:
        hint = typing.get_type_hints(function).get("return")
    except (NameError, TypeError):
        return None
    arguments = get_args(hint)
    return arguments[0] if arguments else hint


def _names(parameters: Parameters) -> str:
    return ", ".join(accepted.__name__ for accepted in parameters.accepts)


def _type_name(hint: object) -> str:
    if hint is None or hint is type(None):
        return "None"
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(_type_name(member) for member in get_args(hint))
    return getattr(hint, "__name__", str(hint))
