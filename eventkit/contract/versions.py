"""R8: names and versions on the wire outlive the classes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from eventkit.adapter import Group
from eventkit.bus import Bus
from eventkit.context import Context
from eventkit.contract.checks import Backend, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.receiving import contents, started
from eventkit.contract.routing import Behind
from eventkit.messages import Command, Event
from eventkit.service import Service

_TOPIC = "versions.stock"


class StockTaken(Event, topic=_TOPIC, key="sku"):
    """As the first release declared it."""

    sku: str
    count: int


class StockCounted(Event, topic=_TOPIC, key="sku", type="StockTaken"):
    """The same, renamed in the code."""

    sku: str
    count: int


class StockWeighed(Event, topic=_TOPIC, key="sku", type="StockTaken", version=3):
    """The same in a later release, which weighs."""

    sku: str
    amount: float
    unit: str


@StockWeighed.upcast(from_version=1)
def _counted(data: dict[str, Any]) -> dict[str, Any]:
    return {"sku": data["sku"], "amount": data["count"]}


@StockWeighed.upcast(from_version=2)
def _pieces(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "unit": "pieces"}


class Take(Command, service="stock"):
    sku: str


class TakeSome(Command, service="stock", type="Take", version=2):
    sku: str
    count: int


@TakeSome.upcast(from_version=1)
def _one(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "count": 1}


@check(
    "R8",
    "a wire name survives a renaming; an older version is upcast; a newer one is kept untried for a replica that knows",
)
async def versions(backend: Backend) -> None:
    namespace = fresh_namespace()
    got: list[str] = []
    old, renamed, new = Service("stock"), Service("renamed"), Service("stock")
    audit = Service("audit")

    @old.handler
    async def taken(event: StockTaken) -> None:
        got.append(f"old {event.sku} {event.count}")

    @old.handler
    async def take(command: Take) -> None:
        got.append(f"old takes {command.sku}")

    @renamed.handler
    async def counted(event: StockCounted) -> None:
        got.append(f"renamed {event.sku} {event.count}")

    @audit.handler(topic=_TOPIC)
    async def anything(event: Event, context: Context) -> None:
        got.append(f"audit {event.model_dump()['sku']} {context.type}")

    @new.handler
    async def weighed(event: StockWeighed, context: Context) -> None:
        got.append(f"new {event.sku} {event.amount:g} {event.unit}, attempt {context.attempt}")

    @new.handler
    async def take_some(command: TakeSome, context: Context) -> None:
        got.append(f"new takes {command.sku} {command.count}, attempt {context.attempt}")

    async def arrive(count: int, what: str) -> None:
        await eventually(lambda: len(got) >= count, f"{what}: {got}")

    clock = Behind()  # or what is kept would come again after half a minute only
    async with bus(backend, namespace) as sender:
        async with Bus(backend.adapter(namespace), source="old", clock=clock) as on, on.run(old, renamed, audit):
            await sender.publish(StockTaken(sku="a", count=1))
            await sender.send(Take(sku="a"))
            await arrive(4, "the old version, by a class of the old name and of a new one")
            await sender.publish(StockWeighed(sku="b", amount=2.5, unit="kg"))
            await sender.send(TakeSome(sku="b", count=2))
            await sender.publish(StockTaken(sku="c", count=3))
            await arrive(8, "what comes behind the newer ones, and an audit of all")
            await stays(lambda: len(got) == 8, f"a newer version was read by an older class: {got}", 0.3)
        async with bus(backend, namespace) as on, on.run(new):
            await arrive(10, "a replica that knows the newer version gets what was kept")
            await sender.publish(StockTaken(sku="d", count=4))
            await sender.send(Take(sku="d"))
            await arrive(12, "it reads the older version too")
            await stays(lambda: len(got) == 12, f"something came twice: {got}", 0.2)
    assert Counter(got) == Counter(
        [
            *("old a 1", "old takes a", "renamed a 1", "audit a StockTaken"),
            *("audit b StockTaken", "old c 3", "renamed c 3", "audit c StockTaken"),
            *("new b 2.5 kg, attempt 1", "new takes b 2, attempt 1"),
            *("new d 4 pieces, attempt 1", "new takes d 1, attempt 1"),
        ]
    )
    async with started(backend, namespace) as adapter:
        dead = [await contents(adapter, Group(name, ()).dead) for name in ("stock", "renamed", "audit")]
    assert dead == [[], [], []], "none of it is a dead letter"
