"""C2, L12, L13, L15: which groups there are, who reads them and what waits for them, and how one goes away."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Collection, Generator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from eventkit.adapter import DONE, Adapter, Address, Backlog, Group, Provision
from eventkit.contract.checks import Backend, Refused, Vacuous, check, eventually, fresh_namespace, stays
from eventkit.contract.receiving import contents, put, raw, receive, started
from eventkit.contract.samples import raises
from eventkit.errors import CapabilityNotSupported, GroupInUse, NoOwner, NotProvisioned

_PARCELS, _LETTERS = Address("topic", "parcels"), Address("topic", "letters.eu")
_INBOX = Address("inbox", "shipping")
_SHIPPING = Group("shipping", (_PARCELS, _LETTERS, _INBOX))
_AUDIT = Group("shipping.audit", (_PARCELS,))
_BILLING = Group("billing", (_LETTERS, Address("inbox", "billing")))

T = TypeVar("T")


@check("C2", "the groups that there are can be listed, with what each reads; where not, asking for it is refused")
async def listed(backend: Backend) -> None:
    namespace = fresh_namespace()
    async with started(backend, namespace) as adapter, started(backend, f"{namespace}x") as beside:
        assert await adapter.groups([_SHIPPING.name]) == []
        await adapter.provision([_SHIPPING, _AUDIT], Provision.CREATE)
        await beside.provision([_BILLING], Provision.CREATE)
        named = await adapter.groups([_AUDIT.name, _BILLING.name, "nobody", _SHIPPING.name])
        assert _named(named) == [_SHIPPING.name, _AUDIT.name]
        if not adapter.capabilities.lists_groups:
            error = await raises(CapabilityNotSupported, adapter.groups())
            assert adapter.name in str(error).lower(), f"it does not name the broker: {error}"
            raise Refused("groups(): the broker says nothing of those whose names are not known")
        assert await beside.groups() == await beside.groups([_BILLING.name]), "another namespace shows"
        for found in (named, await adapter.groups()):
            assert _named(found) == [_SHIPPING.name, _AUDIT.name]
            for group, wanted in zip(found, (_SHIPPING, _AUDIT), strict=True):
                assert set(group.sources) == set(wanted.sources), f"{group.name} reads {group.sources}"
        await put(adapter, raw(_PARCELS, b"1"))
        (audit,) = await adapter.groups([_AUDIT.name])
        await _until(lambda: adapter.measure(audit), lambda it: it.ready == 1, "what was found can be measured")


@check("L12", "who reads a group, and what waits for it, is told truly: by source, in flight only where somebody reads")
async def measured(backend: Backend) -> None:
    namespace = fresh_namespace()
    counts = {_PARCELS: 3, _LETTERS: 2, _INBOX: 1}
    async with (
        started(backend, namespace) as one,
        started(backend, namespace) as other,
        started(backend, namespace) as aside,
    ):
        await aside.provision([_SHIPPING, _AUDIT], Provision.CREATE)
        if (await aside.measure(_SHIPPING)).consumers is None:
            raise Vacuous("the broker does not say who reads")
        for address, count in counts.items():
            await put(aside, *(raw(address, b"x", f"k{number}") for number in range(count)))
        later = datetime.now(UTC) + timedelta(hours=1)
        await put(aside, raw(_SHIPPING.retry, b"later", "k", due=later), raw(_SHIPPING.dead, b"dead", "k"))

        def besides(backlog: Backlog) -> bool:
            ages = [backlog.oldest, *(waiting.oldest for waiting in backlog.sources.values())]
            aged = all(age is None or timedelta(0) <= age < timedelta(minutes=1) for age in ages)
            return aged and backlog.delayed in (1, None) and backlog.dead in (1, None)

        def waits(backlog: Backlog) -> bool:
            split = {address: waiting.ready for address, waiting in backlog.sources.items()}
            in_flight = {waiting.in_flight for waiting in backlog.sources.values()}
            whole = (backlog.consumers, backlog.ready, backlog.in_flight) == (0, 6, 0)
            return whole and split in ({}, counts) and in_flight <= {0} and besides(backlog)

        def is_read(backlog: Backlog) -> bool:
            split = {address: waiting.in_flight for address, waiting in backlog.sources.items()}
            whole = (backlog.consumers, backlog.ready) == (2, 0) and backlog.in_flight in (6, None)
            return whole and split in ({}, counts) and besides(backlog)

        look = functools.partial(aside.measure, _SHIPPING)
        await _until(look, waits, "six wait, and nobody reads")
        readers = [await receive(adapter, _SHIPPING) for adapter in (one, other)]
        await _until(look, is_read, "two read, and have all six in hand")
        soon = datetime.now(UTC) + timedelta(milliseconds=200)
        await put(aside, raw(_SHIPPING.retry, b"soon", "k", due=soon))
        await eventually(lambda: any(b"soon" in reader.bodies for reader in readers), "what is due comes")
        for reader in readers:
            reader.settle_all(found for found in reader.open if found.message.body == b"soon")
        await _until(look, is_read, "what was due no longer waits")
        audit = await aside.measure(_AUDIT)
        assert (audit.consumers, audit.ready, audit.in_flight) == (0, 3, 0), f"another group's shows: {audit}"
        await readers[0].consumer.stop(5.0)
        await _until(look, lambda backlog: backlog.consumers == 1, "one of them has gone")
        await readers[1].consumer.stop(5.0)
        await _until(look, waits, "six wait again, and nobody reads")


@check("L13", "a group is removed with all that is its own, unless somebody reads it; topics and other groups stay")
async def disbanded(backend: Backend) -> None:
    namespace = fresh_namespace()
    both = (_SHIPPING.name, _AUDIT.name)
    async with started(backend, namespace) as adapter, started(backend, namespace) as elsewhere:
        await adapter.disband(_SHIPPING.name)  # it never was
        await adapter.provision([_SHIPPING, _AUDIT], Provision.CREATE)
        await put(elsewhere, *(raw(_PARCELS, b"old", "k") for _ in range(3)), raw(_INBOX, b"old", "k"))
        later = datetime.now(UTC) + timedelta(hours=1)
        await put(adapter, raw(_SHIPPING.retry, b"later", "k", due=later), raw(_SHIPPING.dead, b"dead", "k"))

        look = functools.partial(adapter.measure, _SHIPPING)
        reading = await receive(elsewhere, _SHIPPING, settle_with=DONE)
        await reading.arrive(4)
        await _until(look, lambda backlog: backlog.consumers != 0, "it is read")
        await raises(GroupInUse, adapter.disband(_SHIPPING.name))
        await put(adapter, raw(_PARCELS, b"goes on", "k"), raw(_INBOX, b"goes on", "k"))
        await reading.arrive(6)
        await reading.consumer.stop(5.0)
        assert len(await contents(adapter, _SHIPPING.dead)) == 1, "a refused removal has removed something"
        await put(adapter, *(raw(_PARCELS, b"unread", "k") for _ in range(2)))

        await _until(lambda: _is_disbanded(adapter, _SHIPPING.name), bool, "nobody reads it any more")
        assert _named(await adapter.groups(both)) == [_AUDIT.name]
        assert _named(await elsewhere.groups(both)) == [_AUDIT.name]
        await adapter.disband(_SHIPPING.name)
        await _until(
            functools.partial(_answer, adapter), lambda it: isinstance(it, NoOwner), "its commands have no owner"
        )
        audit = await receive(elsewhere, _AUDIT, settle_with=DONE)
        await audit.arrive(6)
        await _until(functools.partial(_answer, elsewhere), lambda it: isinstance(it, NoOwner), "nor anywhere else")

        await adapter.provision([_SHIPPING], Provision.CREATE)
        assert await contents(adapter, _SHIPPING.dead) == [], "its dead letters are still there"
        await _until(look, lambda it: (it.ready, it.delayed, it.dead) == (0, 0, 0), "made again, it begins anew")
        again = await receive(adapter, _SHIPPING, settle_with=DONE)
        await put(adapter, raw(_PARCELS, b"new", "k"), raw(_INBOX, b"new", "k"))
        await again.arrive(2)
        await audit.arrive(7)
        await stays(lambda: (len(again.got), len(audit.got)) == (2, 7), "it has kept something", 0.3)
        assert again.bodies == [b"new", b"new"]
        await asyncio.gather(again.consumer.stop(5.0), audit.consumer.stop(5.0))


@check("L15", "the removal of a group that is interrupted is seen, or complete: it can be repeated until all is gone")
async def interrupted(backend: Backend) -> None:
    async with started(backend, fresh_namespace()) as adapter:

        async def remove(at: int | None) -> int:
            await adapter.provision([_SHIPPING], Provision.CREATE)
            await put(adapter, raw(_PARCELS, b"1"), raw(_INBOX, b"1"), raw(_SHIPPING.dead, b"1"))
            removal = _Interrupted(adapter.disband(_SHIPPING.name), at)
            task = asyncio.create_task(removal.run())
            await asyncio.wait([task])
            if not task.cancelled():  # it may take fewer steps than the last time
                task.result()
            return removal.waits

        waits = await remove(None)
        if not waits:
            raise Vacuous("it is removed in one step, which nothing can interrupt")
        for at in {max(waits // 2, 1), max(waits - 1, 1), waits}:
            await remove(at)
            if await adapter.groups([_SHIPPING.name]):
                await adapter.disband(_SHIPPING.name)
            await raises(NotProvisioned, adapter.provision([_SHIPPING], Provision.VALIDATE))
            assert isinstance(await _answer(adapter), NoOwner), f"cut off at wait {at} of {waits}, its inbox is there"
            await adapter.provision([_SHIPPING], Provision.CREATE)
            left = await adapter.measure(_SHIPPING)
            assert (left.ready, left.dead) == (0, 0), f"cut off at wait {at} of {waits}, it has left behind: {left}"


class _Interrupted:
    """Work that is cancelled when it waits for the nth time; None: never."""

    def __init__(self, work: Awaitable[None], at: int | None) -> None:
        self.waits = 0
        self._work = work
        self._at = at

    async def run(self) -> None:
        await self

    def __await__(self) -> Generator[Any, None, None]:
        steps: Any = self._work.__await__()
        step = functools.partial(next, steps)
        while True:
            try:
                waits_for = step()
            except StopIteration:
                return
            self.waits += 1
            if self.waits == self._at:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001 it is the work's
                step = functools.partial(steps.throw, error)
            else:
                step = functools.partial(next, steps)


def _named(groups: Collection[Group]) -> list[str]:
    return [group.name for group in groups]


async def _until(
    look: Callable[[], Awaitable[T]], holds: Callable[[T], object], what: str, within: float = 20.0
) -> None:
    """Brokers notice only after a moment who came and who has gone."""
    ends = time.monotonic() + within
    while not holds(found := await look()):
        assert time.monotonic() < ends, f"{what}, but {found}"
        await asyncio.sleep(0.05)


async def _answer(sender: Adapter) -> Exception | None:
    """To a command for the group."""
    (answer,) = await sender.publish([raw(_INBOX, b"for nobody", "k")])
    return answer


async def _is_disbanded(adapter: Adapter, name: str) -> bool:
    try:
        await adapter.disband(name)
    except GroupInUse:
        return False
    return True
