"""A broker that is there and takes nothing more: each message is answered with a typed error in time, nothing that was
confirmed is lost, what is being worked on is kept, and all goes on when there is room again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from eventkit import MessageTooLarge
from eventkit.contract.checks import eventually
from tests.backends import ALL
from tests.breakable import Breakable
from tests.faults.refusing import REFUSING
from tests.faults.traffic import ANSWER, Beat, traffic
from tests.wanted import wanted

BACK = 20.0
"""Seconds within which all goes on once the broker takes messages again."""


@pytest.mark.parametrize("name", [name for name in ALL if name != "memory"])
def test_refusals(name: str, pytestconfig: pytest.Config, breakable: Callable[[str], Breakable]) -> None:
    if name not in wanted(pytestconfig):
        pytest.skip(f"{name} is not asked for")
    asyncio.run(_refused(breakable(name)))


async def _refused(broken: Breakable) -> None:
    how = REFUSING[broken.name]
    async with traffic(lambda namespace: broken.adapter(namespace, publish_timeout="PT3S", **how.settings)) as found:
        found.padding = how.padding
        async with found.going_on():
            await found.flows("it flows", BACK)
            await how.begin(broken, found.namespace)
            await eventually(lambda: len(found.refused) >= 4, "publishes are refused", ANSWER)
            refused = list(found.refused.values())
            assert all(how.says in str(error) for error in refused[-2:]), f"it does not say why: {refused[-1]}"
            if not how.refuses_all:
                assert isinstance(refused[-1], MessageTooLarge), repr(refused[-1])
                await found.sender.publish(Beat(number=-1, key="small"))
                await eventually(lambda: -1 in found.seen, "small ones go on")
            await found.all_read(BACK)  # what is there is read and settled all the while
            assert not found.running.health().errors, found.running.health()
            await how.end(broken, found.namespace)
            await found.flows("it flows again", BACK)
        await found.all_read(BACK)
        await found.green(BACK)
        assert found.slowest < ANSWER, f"a publish was answered after {found.slowest:.1f} s"
