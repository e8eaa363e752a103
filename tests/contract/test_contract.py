"""The contract: every check on every backend."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

import pytest

from eventkit.contract import CHECKS, Backend, Check, Refused, Vacuous
from tests.ledger import Ledger, Result

LIMIT = 120.0
"""Seconds that a check may take, the start of a broker that it may break included."""
GRACE = 1.0
"""Seconds that what a check has stopped may take to end."""


def test_contract(check_on: tuple[str, str], backend: Callable[[str], Backend], ledger: Ledger) -> None:
    check, name = check_on
    found = backend(name)
    result: Result = "fail"
    reason = ""
    began = time.monotonic()
    try:
        run(CHECKS[check], found)
        result = "pass"
    except Vacuous as why:
        result, reason = "vacuous", str(why)
    except Refused as why:
        result, reason = "refused", str(why)
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise
    finally:
        ledger.add(check, name, result, reason, time.monotonic() - began)


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop needs Unix")
@pytest.mark.checks("D1", "D5", "L7", "Q1")
def test_contract_on_uvloop(check_on: tuple[str, str], backend: Callable[[str], Backend]) -> None:
    """A little of it, in each run. EVENTKIT_TEST_LOOP=uvloop has all tests on uvloop."""
    check, name = check_on
    run(CHECKS[check], backend(name), pytest.importorskip("uvloop").new_event_loop)


def run(check: Check, backend: Backend, make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    """Run a check in a loop of its own; whatever it leaves running, or dies unheard, is a failure too."""
    unheard: list[str] = []

    async def limited() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unheard.append(f"{context['message']}: {context}"))
        async with asyncio.timeout(LIMIT):
            await check.run(backend)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            _, left = await asyncio.wait(left, timeout=GRACE)
        if left:
            pytest.fail(f"still running after the end: {', '.join(sorted(map(repr, left)))}")

    with asyncio.Runner(debug=False, loop_factory=make_loop) as runner:
        runner.run(limited())
    if unheard:
        pytest.fail("died unheard: " + "; ".join(unheard))
