"""Discovery: by their names, adapters through the entry points `eventkit.adapters`, and instruments through
`eventkit.tracing` and `eventkit.metrics`."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, Self

from eventkit.adapter import Adapter, Connection
from eventkit.adopting import BrokerObject
from eventkit.errors import AdapterNotFound, SettingsError
from eventkit.instruments import Instrument

GROUP = "eventkit.adapters"
_DISTRIBUTION = "faststream-eventkit"


class Adopting(Adapter, Protocol):
    """An adapter that can take over a FastStream broker object."""

    @classmethod
    def from_broker(cls, broker: BrokerObject, connection: Connection, /) -> Self:
        """Connects as that object does. SettingsError where it is of a kind that cannot be used."""
        ...


def installed() -> Sequence[str]:
    """The names of all adapters, with or without their client library."""
    return sorted(point.name for point in _points())


def load(name: str) -> type[Adapter]:
    """The adapter's class. AdapterNotFound says which names there are, or which extra to install."""
    points = {point.name: point for point in _points()}
    point = points.get(name)
    if point is None:
        near = difflib.get_close_matches(name, points, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AdapterNotFound(f"there is no broker {name!r}{hint} (installed: {', '.join(sorted(points))})")
    try:
        found: type[Adapter] = point.load()
    except ImportError as error:
        raise AdapterNotFound(
            f"the client library of {name!r} is not installed ({error}): pip install '{_DISTRIBUTION}[{name}]'"
        ) from error
    return found


def instruments(tracing: str, metrics: str, service: str = "") -> Sequence[Instrument]:
    """Those that these settings name: one of each for the whole process. `service`: what it is called; empty: nobody
    has said. SettingsError says which names there are, or which extra to install."""
    return [
        _instrument(what, name, service)
        for what, names in (("tracing", tracing), ("metrics", metrics))
        for name in (word.strip() for word in names.split(","))
        if name
    ]


_made: dict[tuple[str, str], Instrument] = {}


def _instrument(what: str, name: str, service: str) -> Instrument:
    found = _made.get((what, name))
    if found is None:
        found = _made[what, name] = _make(what, name, service)
    return found


def _make(what: str, name: str, service: str) -> Instrument:
    variable = f"EVENTKIT_{what.upper()}"
    points = {point.name: point for point in entry_points(group=f"eventkit.{what}")}
    point = points.get(name)
    if point is None:
        raise SettingsError(f"{variable}: there is no {name!r} (installed: {', '.join(sorted(points)) or 'none'})")
    try:
        make: Callable[..., Instrument] = point.load()
    except ImportError as error:
        raise SettingsError(f"{variable}={name}: what it needs is not installed: {error}") from error
    return make(service=service) if "service" in inspect.signature(make).parameters else make()


def adopting(broker: BrokerObject) -> type[Adopting]:
    """The adapter that takes over this FastStream broker object, found by the module of its class.

    AdapterNotFound names the class where no adapter does.
    """
    words = {word for cls in type(broker).__mro__ for word in cls.__module__.split(".")}
    for name in installed():
        if name in words:
            found = load(name)
            if hasattr(found, "from_broker"):
                return typing.cast("type[Adopting]", found)
    cls = type(broker)
    raise AdapterNotFound(
        f"connect(broker=...): no adapter takes a {cls.__module__}.{cls.__qualname__}; give a name "
        f"({', '.join(installed())}) or the FastStream broker object of one of them"
    )


def _points() -> Sequence[EntryPoint]:
    return list(entry_points(group=GROUP))
