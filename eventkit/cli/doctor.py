"""`eventkit doctor`: settings, versions, connection and rights, one after the other, with the mend of what is wrong."""

from __future__ import annotations

import asyncio
import json
import platform
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Annotated, Optional

import typer

from eventkit import discovery
from eventkit import headers as h
from eventkit.adapter import DONE, Adapter, Address, Delivery, Group, Limits, Message, Provision, Settlement
from eventkit.cli.broker import Broker, Json, Url, describe
from eventkit.cli.ending import FAILED
from eventkit.cli.named import load
from eventkit.cli.table import printable
from eventkit.connecting import connect
from eventkit.service import Service
from eventkit.settings import Settings, read_settings
from eventkit.wire import new_id

_DISTRIBUTION = "faststream-eventkit"
_NAME = "eventkit.doctor"
_PATIENCE = 20.0
"""Seconds that one look may take."""
_MEND_URL = "is it running, and are EVENTKIT_URL and the credentials right?"
_MEND_RIGHTS = "give this user the right to create, write and read what eventkit names (see EVENTKIT_NAMESPACE)"


@dataclass(frozen=True, slots=True)
class _Finding:
    what: str
    ok: bool
    said: str
    mend: str = ""


def doctor(
    targets: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="MODULE:SERVICE", help="Also look whether all that these need is there."),
    ] = None,
    rights: Annotated[
        bool,
        typer.Option("--rights", help="Also try to create, write and read. Leaves the group eventkit.doctor behind."),
    ] = False,
    as_json: Json = False,
    broker: Broker = None,
    url: Url = None,
) -> None:
    """Look for what keeps services from working here: settings, versions, connection, rights. Says how to mend it.

    Creates nothing, unless --rights is given: then a topic and a group named eventkit.doctor are made, as a service
    would, and a message goes through them. Exit code 1 where something is wrong.
    """
    found = load(targets or [])
    ok = True

    async def work() -> None:
        nonlocal ok
        async for finding in _examine(broker, url, found, rights):
            ok = ok and finding.ok
            typer.echo(json.dumps(_as_json(finding)) if as_json else _as_text(finding))

    asyncio.run(work())
    if not ok:
        raise typer.Exit(FAILED)


async def _examine(
    broker: str | None, url: str | None, found: Sequence[Service], rights: bool
) -> AsyncIterator[_Finding]:
    """Each finding as it is made; what follows from a failure is left out."""
    yield _Finding("python", True, f"Python {platform.python_version()}, eventkit {version(_DISTRIBUTION)}")
    try:
        settings = read_settings(discovery.installed())
        name = broker or settings.broker
    except Exception as error:  # noqa: BLE001 the finding
        yield _Finding("settings", False, describe(error), "correct the variable")
        return
    yield _Finding("settings", True, _settings(settings, name, url))
    try:
        discovery.load(name)
        bus = connect(broker, url)
    except Exception as error:  # noqa: BLE001 the finding
        yield _Finding("client", False, describe(error), "" if "pip install" in str(error) else "correct the setting")
        return
    yield _Finding("client", True, _clients(name))
    adapter = bus.adapter
    began = time.monotonic()
    try:
        async with asyncio.timeout(_PATIENCE):
            limits = await adapter.start(_PATIENCE)
    except Exception as error:  # noqa: BLE001 the finding
        yield _Finding("connection", False, describe(error), _MEND_URL)
        return
    try:
        yield _Finding("connection", True, _connection(limits, time.monotonic() - began))
        if rights:
            yield await _look("rights", partial(_round_trip, adapter), _MEND_RIGHTS)
        for service in found:
            mend = f"eventkit topics create, for {service.name}; or start it once with EVENTKIT_PROVISION=create"
            yield await _look(service.name, partial(_provisioned, adapter, service), mend)
    finally:
        await adapter.stop(5.0)


async def _look(what: str, look: Callable[[], Awaitable[str]], mend: str) -> _Finding:
    try:
        async with asyncio.timeout(_PATIENCE):
            return _Finding(what, True, await look())
    except TimeoutError:
        return _Finding(what, False, f"nothing came within {_PATIENCE:g} s", mend)
    except Exception as error:  # noqa: BLE001 the finding
        return _Finding(what, False, describe(error), mend)


async def _round_trip(adapter: Adapter) -> str:
    """Create a topic and a group, publish, and read: what a service needs."""
    topic = Address("topic", _NAME)
    await adapter.provision([Group(_NAME, (topic,))], Provision.CREATE)
    ear = _Ear()
    consumer = await adapter.consume(Group(_NAME, (topic,)), ear, in_flight=10)
    ear.settle = consumer.settle
    try:
        began = time.monotonic()
        id_ = new_id()
        headers = {h.SPECVERSION: "1.0", h.ID: id_, h.SOURCE: _NAME, h.TYPE: _NAME, h.MESSAGE_ID: id_}
        (refused,) = await adapter.publish([Message(topic, _NAME, None, headers, b"{}")])
        if refused is not None:
            raise refused
        await ear.came
        took = time.monotonic() - began
    finally:
        await consumer.stop(2.0)
    return f"may create, write and read: a message came back in {took * 1_000:.0f} ms"


class _Ear:
    """A `Receive` for one message."""

    def __init__(self) -> None:
        self.came: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.settle: Callable[[Delivery, Settlement], None] | None = None

    async def deliveries(self, batch: Sequence[Delivery], /) -> None:
        for delivery in batch:
            if self.settle is not None:
                self.settle(delivery, DONE)
        if not self.came.done():
            self.came.set_result(None)

    async def revoked(self, belongs: Callable[[Delivery], bool], needed: Callable[[Delivery], bool] | None, /) -> None:
        """One message is finished at once: there is nothing to hand over."""

    def unsettled(self, delivery: Delivery, how: Settlement, error: Exception, /) -> None:
        """It comes again to the next doctor, who does not mind."""


async def _provisioned(adapter: Adapter, service: Service) -> str:
    groups = [group for group, _ in service.groups().values()]
    await adapter.provision(groups, Provision.VALIDATE)
    backlogs = [await adapter.measure(group) for group in groups]
    dead = sum(backlog.dead or 0 for backlog in backlogs)
    return f"all that it needs is there{f'; {dead} dead letters' if dead else ''}"


def _settings(settings: Settings, name: str, url: str | None) -> str:
    secret = settings.url.get_secret_value() if settings.url else None
    given = url or secret
    if name == "memory":
        where = "memory: nothing leaves the process; set EVENTKIT_BROKER for a real broker"
    elif given is None:
        where = f"{name} on this machine, since EVENTKIT_URL is not set"
    else:
        # what stands before the last @ may hold a password, and so may a query
        scheme, separator, rest = given.rpartition("://")
        where = f"{name} at {scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"
    namespace = f"namespace {settings.namespace}" if settings.namespace else "no namespace"
    return f"{where}; {namespace}; provision {settings.provision.value}"


def _clients(name: str) -> str:
    """The versions of the libraries that the extra of this broker brings."""
    found = []
    for said in (*(requires(_DISTRIBUTION) or ()), *(requires("faststream") or ())):
        package = re.match(r"[\w.-]+", said)
        if package and re.search(rf"extra\s*==\s*['\"]{re.escape(name)}['\"]", said):
            try:
                found.append(f"{package[0].lower()} {version(package[0])}")
            except PackageNotFoundError:
                continue
    return ", ".join(dict.fromkeys(found)) or f"{name} needs none of ours"


def _connection(limits: Limits, seconds: float) -> str:
    return f"connected in {seconds * 1_000:.0f} ms; a message may have {limits.message_bytes:,} bytes"


def _as_text(finding: _Finding) -> str:
    line = f"{'ok' if finding.ok else 'WRONG':<6} {finding.what:<12} {printable(finding.said)}"
    return line if finding.ok or not finding.mend else f"{line}\n{'':<6} {'':<12} mend: {printable(finding.mend)}"


def _as_json(finding: _Finding) -> dict[str, object]:
    return {"check": finding.what, "ok": finding.ok, "said": finding.said, "mend": finding.mend or None}
