"""How long handlers take, and a warning for those that take too long."""

import logging
import time
from datetime import timedelta

from eventkit import CallNext, Delivery

log = logging.getLogger("timing")


class Timing:
    """Every attempt counts, also one that fails: what a handler raises goes on its way."""

    def __init__(self, slow: timedelta) -> None:
        self._slow = slow.total_seconds()
        self.seconds: dict[str, list[float]] = {}
        """By the messages' type."""

    async def __call__(self, delivery: Delivery, call_next: CallNext) -> object:
        began = time.perf_counter()
        try:
            return await call_next(delivery)
        finally:
            took = time.perf_counter() - began
            self.seconds.setdefault(delivery.message.type, []).append(took)
            if took > self._slow:
                log.warning("%s took %.0f ms", delivery.message.type, took * 1_000)
