"""What services listen to, as a small table for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eventkit.adapter import Address
from eventkit.declaring import Handler
from eventkit.messages import routing
from eventkit.service import Service

ALL = "all events"


def channels(services: Sequence[Service]) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Each channel of each group: the group, the channel, and which messages it takes from it."""
    for service in services:
        for name, (group, handlers) in service.groups().items():
            for source in group.sources:
                yield name, f"{source.kind} {source.physical or source.name}", _types(source, handlers)


def table(services: Sequence[Service], where: str) -> str:
    """A line for each channel of each group, under what broker it is."""
    rows = [("group", "listens to", "for")]
    rows += [(group, channel, ", ".join(types)) for group, channel, types in channels(services)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"  {group:<{widths[0]}}  {channel:<{widths[1]}}  {types}" for group, channel, types in rows]
    return "\n".join([f"\n  on {where}", "", *lines, ""])


def _types(source: Address, handlers: Sequence[Handler]) -> list[str]:
    found: list[str] = []
    for handler in handlers:
        if handler.topic is not None:
            if (handler.topic.name, handler.topic.physical) == (source.name, source.physical):
                found.append(ALL)
            continue
        routes = [routing(accepted) for accepted in handler.parameters.accepts]
        found.extend(route.type for route in routes if route.address == source)
    return found
