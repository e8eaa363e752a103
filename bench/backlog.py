"""A consumer process of its own beside a large backlog: prints its peak memory, and what a message costs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

from bench.measure import peak_megabytes
from bench.ours import Eventkit
from bench.shapes import Countdown

_READ = 1_000
_MORE = 20_000
_AT_ONCE = 20_000


async def fill(broker: str, url: str, topic: str, waiting: int) -> None:
    side = Eventkit(broker)
    await side.open(url, topic)
    for first in range(0, waiting, _AT_ONCE):
        await side.publish_many(side.make(min(_AT_ONCE, waiting - first)))
    await side.close()


async def read(broker: str, url: str, topic: str, waiting: int) -> None:
    side = Eventkit(broker)
    await side.open(url, topic)
    await side.consume(_READ, lambda _: time.sleep(0.0002))
    found = {"megabytes": peak_megabytes()}
    if waiting > _READ + _MORE:
        ends = Countdown(_MORE)  # fewer than are left: some more than that were read before
        await side.consume(ends.count, lambda _: ends())
        found["microseconds"] = ends.microseconds
    await side.close()
    sys.stdout.write(json.dumps(found) + "\n")


def main(broker: str, url: str, waiting: str, topic: str = "") -> None:
    if topic:
        asyncio.run(read(broker, url, topic, int(waiting)))
        return
    topic = f"backlog{time.time_ns():x}"
    asyncio.run(fill(broker, url, topic, int(waiting)))
    subprocess.run([sys.executable, "-m", "bench.backlog", broker, url, waiting, topic], check=True, timeout=600)


if __name__ == "__main__":
    main(*sys.argv[1:])
