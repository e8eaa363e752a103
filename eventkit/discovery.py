"""Discovery: an adapter by its name, through the entry points `eventkit.adapters`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from eventkit.adapter import Adapter
from eventkit.errors import AdapterNotFound

GROUP = "eventkit.adapters"
_DISTRIBUTION = "faststream-eventkit"


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


def _points() -> Sequence[EntryPoint]:
    return list(entry_points(group=GROUP))
