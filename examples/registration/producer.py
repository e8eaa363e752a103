"""Publishes people who register.

python -m examples.registration.producer                          one a second, until Ctrl-C
python -m examples.registration.producer --count 3 --every 0.5
"""

import argparse
import asyncio
import contextlib
import itertools
from datetime import UTC, datetime

import eventkit
from examples.registration.messages import UserRegistered

NAMES = ("Ada", "Grace", "Alan", "Barbara", "Edsger", "Margaret", "Donald", "Radia")


async def register(bus: eventkit.Bus, count: int | None, every: float) -> None:
    """Publish `count` people (None: without end), one each `every` seconds."""
    for number in itertools.count(1) if count is None else range(1, count + 1):
        name = NAMES[(number - 1) % len(NAMES)]
        user = UserRegistered(
            id=number, name=name, email=f"{name.lower()}@example.com", registered_at=datetime.now(UTC)
        )
        await bus.publish(user)  # returns when the broker has it
        print(f"registered {user.id}: {user.name} <{user.email}>", flush=True)
        if number != count:
            await asyncio.sleep(every)


async def main() -> None:
    parser = argparse.ArgumentParser(description="Publishes people who register.")
    parser.add_argument("--count", type=int, help="how many; without it: until Ctrl-C")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two; 1 by default")
    options = parser.parse_args()
    async with eventkit.connect(service="website") as bus:
        await register(bus, options.count, options.every)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
