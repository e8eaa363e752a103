"""Which groups there are, what they read, and how one is removed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from eventkit.adapter import Address, Group
from eventkit.errors import GroupInUse
from eventkit_redis import scripts as lua
from eventkit_redis.keys import Keys
from eventkit_redis.link import Link, command, script

_PAGE: Final = 1_000
"""Keys that Redis looks at in one step of a scan."""
_AT_ONCE: Final = 200


async def groups(link: Link, keys: Keys, names: Collection[str] | None) -> list[Group]:
    """All keys are looked through for streams: nothing else says what a group reads."""
    there = set() if names is None else await _there(link, keys, names)
    if names is not None and not there:
        return []
    streams = await _streams(link)
    if names is None:
        there = {name for name in map(keys.dead_of, streams) if name is not None}
    by_group: dict[str, list[Address]] = {keys.group(name): [] for name in there}
    for stream, readers in (await _readers(link, streams)).items():
        address = keys.source_of(stream)
        for reader in readers:
            if address is not None and reader in by_group:
                by_group[reader].append(address)
    return [Group(name, tuple(by_group[keys.group(name)])) for name in sorted(there)]


async def disband(link: Link, keys: Keys, name: str) -> None:
    """The dead letters go last: a removal that was interrupted can be repeated by them."""
    (consumers,) = await link.ask(script(lua.READERS, (keys.readers(name),)))
    if consumers:
        raise GroupInUse(name, consumers)
    group = keys.group(name)
    own = [keys.stream(Address(kind, name)) for kind in ("inbox", "retry", "dead")]
    found = await _readers(link, [stream for stream in await _streams(link) if stream not in own])
    topics = [stream for stream, readers in found.items() if group in readers]
    if topics:
        await link.ask(
            *(command("XGROUP", "DESTROY", topic, group) for topic in topics),
            *(command("HDEL", keys.gaps(topic), f"{group}:from", f"{group}:to") for topic in topics),
        )
    taken = [keys.taken(stream) for stream in own[:2]]
    rest = (own[0], own[1], *taken, keys.due(name), keys.waiting(name), keys.readers(name), keys.begun(name))
    await link.ask(*(command("UNLINK", key) for key in rest))
    await link.ask(command("UNLINK", own[2]))


async def _there(link: Link, keys: Keys, names: Collection[str]) -> set[str]:
    wanted = sorted(set(names))
    if not wanted:
        return set()
    found = await link.ask(*(command("EXISTS", keys.stream(Address("dead", name))) for name in wanted))
    return {name for name, there in zip(wanted, found, strict=True) if there}


async def _streams(link: Link) -> list[str]:
    found: set[bytes] = set()
    cursor: Any = b"0"
    while True:
        ((cursor, page),) = await link.ask(command("SCAN", cursor, "COUNT", _PAGE, "TYPE", "stream"))
        found.update(page)
        if int(cursor) == 0:
            return sorted(key.decode(errors="surrogateescape") for key in found)


async def _readers(link: Link, streams: Sequence[str]) -> dict[str, list[str]]:
    """The consumer groups of each of these."""
    found: dict[str, list[str]] = {}
    for at in range(0, len(streams), _AT_ONCE):
        some = streams[at : at + _AT_ONCE]
        answers = await link.ask(*(script(lua.GROUPS, (stream,)) for stream in some))
        for stream, names in zip(some, answers, strict=True):
            found[stream] = [name.decode(errors="replace") for name in names]
    return found
