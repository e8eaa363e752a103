"""A producer of the rig: `python -m tests.rig.producer FOLDER LIFE`.

It says of each message that it is sent, and then that it was acknowledged. One that was refused is sent again with the
same id, as the documents say, a few times.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta

from eventkit import Bus, PublishError
from tests.rig.journal import Journal
from tests.rig.process import main
from tests.rig.work import COMMAND, EVENTS, Do, Told

ORDERED_KEYS = 6
OTHERS = 4
"""That publish anything else, side by side."""
PAUSE = 0.06
"""Seconds between two messages of one of them."""
TRIES = 4


async def _work(bus: Bus, journal: Journal, stop: asyncio.Event) -> None:
    life = sys.argv[2]
    journal.write("ready")
    rng = random.Random(life)

    async def confirmed(what: str, key: str, number: int, put: Callable[[str], Awaitable[object]]) -> None:
        journal.write("sent", what, key, number)
        for _ in range(TRIES):
            try:
                await put(f"{what}.{key}.{number}")
            except PublishError as error:
                journal.write("refused", what, key, number)
                sys.stderr.write(f"{what} {key} {number}: {error!r}\n")
                await asyncio.sleep(0.1)
            else:
                journal.write("acked", what, key, number)
                return

    async def ordered(key: str) -> None:
        number = 0
        while not stop.is_set():
            event = Told(what="ordered", key=key, number=number)
            await confirmed("ordered", key, number, lambda id_: bus.publish(event, id=id_))  # noqa: B023
            number += 1
            await asyncio.sleep(PAUSE)

    async def others(key: str) -> None:
        number = 0
        weights = {"plain": 12, COMMAND: 6, "fails": 3, "delayed": 2, "doomed": 1, "exhausted": 1}
        while not stop.is_set():
            (what,) = rng.choices(list(weights), list(weights.values()))
            if what == COMMAND:
                command = Do(key=key, number=number)
                await confirmed(what, key, number, lambda id_: bus.send(command, id=id_))  # noqa: B023
            else:
                event = Told(what=what, key=key, number=number)
                delay = timedelta(seconds=rng.uniform(0.2, 3)) if what == "delayed" else None
                await confirmed(what, key, number, lambda id_: bus.publish(event, id=id_, delay=delay))  # noqa: B023
            number += 1
            await asyncio.sleep(PAUSE)

    assert "ordered" in EVENTS
    await asyncio.gather(
        *(ordered(f"{life}-o{place}") for place in range(ORDERED_KEYS)),
        *(others(f"{life}-x{place}") for place in range(OTHERS)),
    )


if __name__ == "__main__":
    main(_work)
