"""Service, Router and the handler decorators: declarations only. No connection is opened, no environment read."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import (
    Any,
    Concatenate,
    ParamSpec,
    TypeAlias,
    TypeVar,
    get_args,
    overload,
)

from eventkit.adapter import Address, Delivery, Group, Start
from eventkit.batches import Batch
from eventkit.circuit import Circuit
from eventkit.clock import check_time
from eventkit.context import Outgoing
from eventkit.declaring import Handler, Said, check_returned, check_timeout, declare
from eventkit.errors import DeclarationError
from eventkit.messages import Command, Event, Topic, routing
from eventkit.names import logical
from eventkit.once import OnceStore
from eventkit.parameters import caller_names
from eventkit.retry import Retry
from eventkit.wire import Serializer

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
        if function is not None and not callable(function):
            raise DeclarationError(
                f"handler({function!r}): what it takes is said by the annotation of the function below it: write "
                "@service.handler, or @service.handler(retry=...)"
            )
        local_names = caller_names(1)

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            said = Said(retry, timeout, circuit, batch, once)
            self._add(declare(function, local_names, said, group=group, topic=topic))
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
            handler = declare(function, local_names, Said(retry, timeout, circuit, once=once))
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
        check_returned(handler)
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
    "earliest" where the broker can. `quarantine_after` is how often a process may die with a message on trial
    until that is a dead letter, `quarantined`. On trial is what was delivered for the third time: among few others at
    first, then alone in its process, at least the last two times (three of five), so that no other is blamed, and out
    of its key's order. Stops and deploys do not count. None: never. `stop_timeout` is how long a stop waits for running
    handlers. `order_across_replicas`: messages of one key keep their order also while several
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
        check_timeout(f"Service({name!r})", timeout)
        self.timeout = timeout
        if quarantine_after is not None and quarantine_after < 2:
            raise DeclarationError(
                f"Service({name!r}): quarantine_after={quarantine_after}; 2 is the least, None never quarantines"
            )
        self.start: Start = start
        self.quarantine_after = quarantine_after
        self.stop_timeout = check_time(f"Service({name!r}): stop_timeout", stop_timeout)
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
        """What would otherwise fail at the start, or at the first message."""
        if self.lifespan is not None:
            name = getattr(self.lifespan, "__qualname__", repr(self.lifespan))
            if isinstance(self.lifespan, AbstractAsyncContextManager) or not callable(self.lifespan):
                raise DeclarationError(f"Service({self.name!r}): lifespan={name} is called: give the function itself")
            if _needs_arguments(self.lifespan):
                raise DeclarationError(
                    f"Service({self.name!r}): the lifespan {name} is called without arguments, and asks for some"
                )
            if not _makes_a_context(self.lifespan):
                raise DeclarationError(
                    f"Service({self.name!r}): the lifespan {name} is no context manager: decorate it with "
                    "@contextlib.asynccontextmanager"
                )
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


def _sources(handler: Handler) -> Sequence[Address]:
    if handler.topic is not None:
        return (Address("topic", handler.topic.name, handler.topic.physical),)
    return [routing(accepted).address for accepted in handler.parameters.accepts]


def _taken(handlers: Sequence[Handler]) -> dict[tuple[str | None, str], Handler]:
    return {(h.group, _wire_name(h, accepted)): h for h in handlers for accepted in h.parameters.accepts}


def _wire_name(handler: Handler, accepted: type[Event | Command[Any]]) -> str:
    """What tells types apart in a group: the address and the wire name."""
    if handler.topic is not None:
        return f"topic:{handler.topic.name} {'*' if accepted is Event else routing(accepted).type}"
    route = routing(accepted)
    return f"{route.address} {route.type}"


def _needs_arguments(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    except ValueError:  # it does not tell
        return False
    return False


def _makes_a_context(function: Callable[..., object]) -> bool:
    """False where it surely does not: a generator or a coroutine that nothing was put around."""
    return not (
        inspect.isasyncgenfunction(function)
        or inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
    )


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
