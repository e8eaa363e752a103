"""Making streams and groups, and checking that they are there."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from redis.exceptions import ResponseError

from eventkit.adapter import Address, Group, Provision
from eventkit.errors import NotProvisioned
from eventkit_redis import scripts as lua
from eventkit_redis.keys import Keys
from eventkit_redis.link import Link, command, script

log = logging.getLogger("eventkit.redis")


class _Need(NamedTuple):
    what: str
    key: str
    group: str
    """The consumer group on it; empty: none is needed."""
    begun: tuple[str, ...]
    """The hash that says whether the group has begun with it before, and the stream of its dead letters, without which
    the group is not there; empty: `start` holds in any case."""
    start: str
    """Where a new group begins: `$`, the end, or `0`, the beginning."""
    create: bool


async def provision(link: Link, keys: Keys, wanted: Collection[Address | Group], how: Provision) -> set[str]:
    """Create or check. Returns the streams of all topics that were made sure of."""
    if how is Provision.ASSUME:
        return set()
    needs = list(_needs(keys, wanted))
    creating = how is Provision.CREATE
    await _create(link, [need for need in needs if creating and need.create])
    await _check(link, [need for need in needs if not (creating and need.create)])
    addresses = [address for want in wanted for address in (want.sources if isinstance(want, Group) else (want,))]
    return {keys.stream(address) for address in addresses if address.kind == "topic"} if creating else set()


async def check(link: Link, keys: Keys, group: Group) -> None:
    """NotProvisioned names what a group lacks."""
    await _check(link, list(_needs(keys, (group,))))


def _needs(keys: Keys, wanted: Collection[Address | Group]) -> Iterator[_Need]:
    for want in wanted:
        if isinstance(want, Group):
            yield from _needs_of(keys, want)
        elif want.kind == "retry":
            yield _Need(str(want), keys.stream(want), keys.group(want.name), (), "0", True)
        elif want.kind != "reply":
            yield _Need(str(want), keys.stream(want), "", (), "", want.kind != "inbox")


def _needs_of(keys: Keys, group: Group) -> Iterator[_Need]:
    if any(source.kind == "reply" for source in group.sources):
        return
    name = keys.group(group)
    start = "0" if group.start == "earliest" else "$"
    for source in group.sources:
        # An inbox and a retry stream have one reader for ever: nothing in them may be skipped.
        topic = source.kind == "topic"
        begun = (keys.begun(group.name), keys.stream(group.dead)) if topic else ()
        begin = start if topic else "0"
        yield _Need(f"group {group.name!r} on {source}", keys.stream(source), name, begun, begin, True)
    yield _Need(f"group {group.name!r} on {group.retry}", keys.stream(group.retry), name, (), "0", True)
    yield _Need(str(group.dead), keys.stream(group.dead), "", (), "", True)


async def _create(link: Link, needs: Sequence[_Need]) -> None:
    if not needs:
        return
    known = [need for need in needs if need.begun]
    noted = await _noted(link, {need.begun: need.group for need in known})
    starts = ["0" if (need.group, need.key) in noted else need.start for need in needs]
    wire = [script(lua.CREATE, (need.key,), need.group, start) for need, start in zip(needs, starts, strict=True)]
    new = [need for need in known if (need.group, need.key) not in noted]
    try:
        made = await link.ask(*wire)
    except ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        names = ", ".join(need.key for need in needs)
        raise NotProvisioned(f"one of the keys {names} exists on this Redis and is no stream: {error}") from error
    if new:  # only now: what it could not begin with is not to be read from its oldest message on
        await link.ask(*(command("HSET", need.begun[0], need.key, 1) for need in new))
    for need, anew in zip(needs, made, strict=True):
        if anew and (need.group, need.key) in noted:
            log.error(
                "group %s had begun to read %s and was gone from it (destroyed, or the stream was deleted): it reads "
                "all that is kept there. What it had handled comes again.",
                *(need.group, need.key),
            )


async def _noted(link: Link, begun: Mapping[tuple[str, ...], str]) -> set[tuple[str, str]]:
    """The groups, each with a stream that it has begun to read."""
    if not begun:
        return set()
    found = await link.ask(*(script(lua.NOTED, keys) for keys in begun))
    of_each = zip(begun.values(), found, strict=True)
    return {(group, key.decode(errors="surrogateescape")) for group, noted in of_each for key in noted}


async def _check(link: Link, needs: Sequence[_Need]) -> None:
    if not needs:
        return
    found = await link.ask(*(script(lua.CHECK, (need.key,), need.group) for need in needs))
    missing = [
        f"{need.what} ({'stream' if state == 0 else 'group'} {need.key if state == 0 else need.group!r} is not there)"
        for need, state in zip(needs, found, strict=True)
        if state != 2
    ]
    if missing:
        raise NotProvisioned(f"missing on this Redis: {'; '.join(missing)}")
