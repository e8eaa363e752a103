"""A consumer process of its own beside a large backlog: prints its peak memory in megabytes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from bench.measure import peak_megabytes
from bench.ours import Eventkit

_READ = 1_000


async def fill(broker: str, url: str, topic: str, waiting: int) -> None:
    side = Eventkit(broker)
    await side.open(url, topic)
    for _ in range(waiting // _READ):
        await side.publish_many(side.make(_READ))
    await side.close()


async def read(broker: str, url: str, topic: str) -> None:
    side = Eventkit(broker)
    await side.open(url, topic)
    await side.consume(_READ, lambda _: time.sleep(0.0002))
    await side.close()
    sys.stdout.write(f"{peak_megabytes():.1f}\n")


def main(broker: str, url: str, waiting: str, topic: str = "") -> None:
    if topic:
        asyncio.run(read(broker, url, topic))
        return
    topic = f"backlog{time.time_ns():x}"
    asyncio.run(fill(broker, url, topic, int(waiting)))
    subprocess.run([sys.executable, "-m", "bench.backlog", broker, url, waiting, topic], check=True, timeout=600)


if __name__ == "__main__":
    main(*sys.argv[1:])
