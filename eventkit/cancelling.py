"""Who cancelled: one of us, or a broker's client by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def unbroken(work: Awaitable[T]) -> T:
    """Wait for `work`, a call of a broker's client: only who cancels our own task ends it, and does so.

    Where clients close something, or lose a connection, some cancel what is waited for: that is a
    ConnectionAbortedError. And some answer a cancellation that comes in such a moment with the reason of the loss, so
    that whoever tries again would do so for ever: that is a CancelledError. Else what `work` returns or raises.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        return await work
    except asyncio.CancelledError:
        if task is None or task.cancelling():
            raise
        gave_up = "the client gave up what was under way, as clients do where a connection is lost"
        raise ConnectionAbortedError(gave_up) from None
    except Exception as error:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError from error
        raise


__all__ = ["unbroken"]
