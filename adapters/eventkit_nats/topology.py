"""Streams and durables: what stands where, making it and proving it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from nats.js.errors import APIError, NotFoundError

from eventkit.adapter import Address, Group, Provision
from eventkit.errors import NotProvisioned, SettingsError
from eventkit.names import Naming
from eventkit_nats.beginnings import Beginnings, say
from eventkit_nats.exchange import Exchange
from eventkit_nats.settings import NatsSettings

_IN_USE = 10058
"""A stream of that name exists with other settings."""
_OVERLAP = 10065
"""Another stream has these subjects."""
_TOO_FEW = (10005, 10074)
"""There are not as many servers as a stream is to have replicas; or the server is none of a cluster."""
_EXISTS = (10105, 10148)
"""A consumer of that name exists already."""
_OWNED = 30.0
"""Seconds for which an inbox that had an owner is taken to have one still."""
_illegal = re.compile(r"[^A-Za-z0-9_=-]")


class Place(NamedTuple):
    """Where an address is kept."""

    stream: str
    filter: str | None
    """The one subject of that stream which is meant. None: all."""


class Topology:
    def __init__(self, naming: Naming, settings: NatsSettings, exchange: Exchange) -> None:
        self._naming = naming
        self._settings = settings
        self._exchange = exchange
        self._beginnings = Beginnings(exchange)
        self._owned: dict[Address, float] = {}
        self._created: dict[str, Group] = {}

    # Names

    def durable(self, group: str, address: Address) -> str:
        """A group's durable on the stream of an address. On foreign streams, of which several addresses may share
        one, it carries the address's name too."""
        if address.physical is None:
            return self._naming.group(group)
        return self._naming.join(group, _illegal.sub(lambda match: f"={ord(match[0]):x}", address.physical))

    async def place(self, address: Address) -> Place:
        """NotProvisioned, if there is no stream for a foreign channel."""
        if address.physical is None:
            return Place(self._naming.channel(address.kind, address.name), None)
        found = await self._exchange.api("STREAM.NAMES", {"subject": address.physical})
        if found.get("streams"):
            return Place(found["streams"][0], address.physical)
        if not _illegal.search(address.physical):
            try:
                await self._exchange.api(f"STREAM.INFO.{address.physical}")
            except NotFoundError:
                pass
            else:
                return Place(address.physical, None)
        raise NotProvisioned(f"no stream has the subject {address.physical!r} of {address}")

    # What exists

    async def exists(self, address: Address) -> bool:
        try:
            place = await self.place(address)
            await self._exchange.api(f"STREAM.INFO.{place.stream}")
        except (NotFoundError, NotProvisioned):
            return False
        return True

    async def largest(self, address: Address) -> int:
        """The largest message that its stream takes, in bytes. -1: it does not say."""
        place = await self.place(address)
        size: int = (await self._exchange.api(f"STREAM.INFO.{place.stream}"))["config"].get("max_msg_size", -1)
        return size

    async def owned(self, inbox: Address) -> bool:
        """Has the inbox a durable that reads it? A stream alone would take commands that nobody ever gets."""
        now = asyncio.get_running_loop().time()
        if self._owned.get(inbox, 0.0) > now:
            return True
        try:
            place = await self.place(inbox)
            info = await self._exchange.api(f"STREAM.INFO.{place.stream}")
        except (NotFoundError, NotProvisioned):
            return False
        if not info["state"]["consumer_count"]:
            return False
        self._owned[inbox] = now + _OWNED
        return True

    async def consumer(self, place: Place, durable: str, timeout: float | None = None) -> dict[str, Any]:
        """What the server knows of a durable. NotProvisioned, if it is missing."""
        try:
            return await self._exchange.api(f"CONSUMER.INFO.{place.stream}.{durable}", timeout=timeout)
        except NotFoundError as error:
            raise NotProvisioned(f"there is no consumer {durable!r} on the stream {place.stream!r}") from error

    async def created(self, place: Place, timeout: float | None = None) -> str:
        """When the stream was made, as the server says it."""
        made: str = (await self._exchange.api(f"STREAM.INFO.{place.stream}", timeout=timeout))["created"]
        return made

    # Provisioning

    async def provision(self, wanted: Collection[Address | Group], how: Provision) -> None:
        if how is Provision.ASSUME:
            return
        works = [
            self._group(item, how) if isinstance(item, Group) else self._address(item, how)
            for item in dict.fromkeys(wanted)
        ]
        found = await asyncio.gather(*works, return_exceptions=True)
        missing: list[str] = []
        for result in found:
            if isinstance(result, BaseException):
                raise result
            missing += result
        if missing:
            raise NotProvisioned(f"missing on NATS: {'; '.join(dict.fromkeys(missing))}")

    async def _address(self, address: Address, how: Provision) -> list[str]:
        if address.kind == "reply":
            return []
        if address.kind == "inbox":
            if await self.owned(address):
                return []
            return [f"the inbox of {address.name!r} (its service makes it when it starts)"]
        if how is Provision.CREATE:
            await self._make_stream(address)
            return []
        return [] if await self.exists(address) else [_missing_stream(address, self._stream_name(address))]

    async def _group(self, group: Group, how: Provision) -> list[str]:
        sources = [source for source in group.sources if source.kind != "reply"]
        if not sources:
            return []
        if how is Provision.CREATE:
            await asyncio.gather(*(self._make_stream(address) for address in (*sources, group.retry, group.dead)))
            dead = self._stream_name(group.dead)
            noted = await self._beginnings.noted(dead)
            await self._make_durable(group, group.retry)
            begun = set(await asyncio.gather(*(self._make_durable(group, source, noted=noted) for source in sources)))
            if not begun <= noted:
                await self._beginnings.note(dead, begun)
            self._created[group.name] = group
            return []
        missing: list[str] = []
        for address in (*sources, group.retry, group.dead):
            if not await self.exists(address):
                missing.append(_missing_stream(address, self._stream_name(address)))
            elif address.kind != "dead":
                place, durable = await self.place(address), self.durable(group.name, address)
                try:
                    await self.consumer(place, durable)
                except NotProvisioned:
                    missing.append(f"consumer {durable!r} on stream {place.stream!r} for {address}")
        return missing

    def forget(self, group: str) -> None:
        """It was removed."""
        self._owned.pop(Address("inbox", group), None)
        self._created.pop(group, None)

    async def restore(self, group: Group, address: Address, created: str, sequence: int, since: datetime) -> bool:
        """Make again what was deleted under a running group, if we may: False, if we had not made it. It goes on with
        `sequence`, 0 where nothing has come yet: then with what was stored `since`. Where the stream is not the one
        that was `created` then, all that is in it is new."""
        if group.name not in self._created:
            return False
        await self._make_stream(address)
        place = await self.place(address)
        start: dict[str, Any] = {"deliver_policy": "by_start_time", "opt_start_time": since.isoformat()}
        if await self.created(place) != created:
            start = {"deliver_policy": "all"}
        elif sequence:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": sequence}
        await self._make_durable(group, address, start)
        return True

    def _stream_name(self, address: Address) -> str:
        return self._naming.channel(address.kind, address.name, address.physical)

    async def _make_stream(self, address: Address) -> None:
        if address.physical is not None:
            if await self.exists(address):
                return
            name = _illegal.sub("=", address.physical)
            subjects = [address.physical]
        else:
            name = self._naming.channel(address.kind, address.name)
            subjects = [name, f"{name}.>"]
        wanted = self._stream(address.kind, name, subjects)
        try:
            found = await self._exchange.api(f"STREAM.INFO.{name}")
        except NotFoundError:
            try:
                await self._exchange.api(f"STREAM.CREATE.{name}", wanted)
            except APIError as error:
                if error.err_code == _OVERLAP:
                    raise SettingsError(
                        f"{address}: another stream has its subjects {subjects} already; to use that one, "
                        "say so with Topic(..., physical=...)"
                    ) from error
                if error.err_code in _TOO_FEW:
                    raise _too_few(name, wanted, error) from error
                if error.err_code != _IN_USE:
                    raise
                found = await self._exchange.api(f"STREAM.INFO.{name}")
            else:
                return
        await self._reconcile(address, wanted, found["config"])

    def _stream(self, kind: str, name: str, subjects: list[str]) -> dict[str, Any]:
        settings = self._settings
        config: dict[str, Any] = {
            "name": name,
            "subjects": subjects,
            "storage": "file",
            # Each message of an inbox or a retry stream has one reader, the group: what is settled is deleted.
            # Dead letters and topics stay: these until they are too old, those until a person says so.
            "retention": "workqueue" if kind in ("inbox", "retry") else "limits",
            "discard": "old" if kind == "topic" else "new",
            "num_replicas": settings.replicas,
            "duplicate_window": _ns(settings.duplicate_window),
            "max_age": 0,
            "max_bytes": -1,
            "max_msgs": -1,
            "allow_direct": True,
        }
        if kind == "topic":
            config["max_age"] = _ns(settings.topic_age)
            config["max_bytes"] = settings.topic_bytes
            if settings.topic_age:
                config["duplicate_window"] = min(config["duplicate_window"], config["max_age"])
        elif kind == "inbox":
            config["max_bytes"] = settings.inbox_bytes
        return config

    async def _reconcile(self, address: Address, wanted: dict[str, Any], found: dict[str, Any]) -> None:
        """Bring an existing stream up to what was set: what can be changed is changed, else the start is stopped."""
        name = wanted["name"]
        if (found["retention"] == "workqueue") != (wanted["retention"] == "workqueue"):
            raise SettingsError(
                f"stream {name!r} has retention {found['retention']!r}, {address} needs {wanted['retention']!r}: "
                "this cannot be changed; delete the stream or choose another name"
            )
        changed: dict[str, Any] = {}
        if address.physical is None:
            had = found.get("subjects") or []
            if lacking := [subject for subject in wanted["subjects"] if subject not in had]:
                changed["subjects"] = [*had, *lacking]
        given = self._settings.model_fields_set
        for setting, keys in (
            ("replicas", ("num_replicas",)),
            ("duplicate_window", ("duplicate_window",)),
            ("topic_age", ("max_age",) if address.kind == "topic" else ()),
            ("topic_bytes", ("max_bytes",) if address.kind == "topic" else ()),
            ("inbox_bytes", ("max_bytes",) if address.kind == "inbox" else ()),
        ):
            if setting in given:
                changed.update({key: wanted[key] for key in keys if found.get(key, 0) != wanted[key]})
        if changed:
            try:
                await self._exchange.api(f"STREAM.UPDATE.{name}", {**found, **changed})
            except APIError as error:
                if error.err_code in _TOO_FEW:
                    raise _too_few(name, wanted, error) from error
                raise

    async def _make_durable(
        self, group: Group, address: Address, start: Mapping[str, Any] | None = None, noted: Collection[str] = ()
    ) -> str:
        """Returns by which name it is noted that the group has begun there. `noted`: where it had begun before."""
        place, durable = await self.place(address), self.durable(group.name, address)
        note = f"{place.stream}.{durable}"
        lease = _ns(self._settings.lease)
        # a work queue is read from its beginning: nothing in it was settled
        everything = address.kind in ("inbox", "retry") or group.start == "earliest" or note in noted
        config: dict[str, Any] = {
            "durable_name": durable,
            "deliver_policy": "all" if everything else "new",
            "ack_policy": "explicit",
            "ack_wait": lease,
            "max_ack_pending": -1,
            "max_deliver": -1,
            "max_waiting": 2048,
            "replay_policy": "instant",
        }
        if start is not None and address.kind == "topic":
            config.update(start)
        if place.filter is not None:
            config["filter_subject"] = place.filter
        try:
            found = (await self.consumer(place, durable))["config"]
        except NotProvisioned:
            try:
                await self._create_durable(place, config, "create")
            except APIError as error:
                if error.err_code not in _EXISTS:
                    raise
                found = (await self.consumer(place, durable))["config"]
            else:
                if note in noted and address.kind == "topic":
                    say(group.name, place.stream)
                return note
        if found.get("deliver_subject") or found["ack_policy"] != "explicit":
            raise SettingsError(
                f"consumer {durable!r} on stream {place.stream!r} is not ours: it pushes or needs no acknowledgement; "
                "delete it or rename the service"
            )
        changed = {}
        if found.get("max_ack_pending") != -1:
            # with a limit, as many waiting retries as that would stop all others
            changed["max_ack_pending"] = -1
        if "lease" in self._settings.model_fields_set and found["ack_wait"] != lease:
            changed["ack_wait"] = lease
        if changed:
            await self._create_durable(place, {**found, **changed}, "update")
        return note

    async def _create_durable(self, place: Place, config: dict[str, Any], action: str) -> None:
        await self._exchange.api(
            f"CONSUMER.DURABLE.CREATE.{place.stream}.{config['durable_name']}",
            {"stream_name": place.stream, "config": config, "action": action},
        )


def _ns(time: timedelta) -> int:
    return round(time.total_seconds() * 1e9)


def _too_few(name: str, wanted: Mapping[str, Any], error: APIError) -> SettingsError:
    return SettingsError(
        f"EVENTKIT_NATS__REPLICAS is {wanted['num_replicas']}, and there are fewer servers for stream {name!r}: add "
        f"some with JetStream to the cluster, or set it lower, to 1 outside of a cluster ({error.description})"
    )


def _missing_stream(address: Address, name: str) -> str:
    return f"stream {name!r} for {address}"
