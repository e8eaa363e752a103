"""Two clinics and one laboratory: timed, told apart by a header, and sealed; on the broker of the environment.

python -m examples.middleware
"""

import asyncio
import secrets
import sys

import eventkit
from eventkit.log import to_console
from examples.middleware.sealed import Sealed
from examples.middleware.service import SampleTaken, archive, found, laboratory, timing
from examples.middleware.tenant import HEADER

PATIENCE = 30.0


async def main() -> None:
    to_console()
    run = secrets.token_hex(2)
    async with eventkit.connect(service="clinic") as bus, bus.run(laboratory, archive):
        for clinic in ("north", "south"):
            await bus.carrying(headers={HEADER: clinic}).publish(
                SampleTaken(patient=f"{clinic} {run}", blood="abcdefg")
            )
        lost = Sealed({"1999": secrets.token_bytes(32)}, current="1999")
        message = bus.encode(SampleTaken(patient=f"lost {run}", blood="abc"), headers={HEADER: "north"})
        body = lost.encode(SampleTaken(patient=f"lost {run}", blood="abc"))
        await bus.deliver([message._replace(body=body)])  # of a clinic whose key is not known here

        letters: list[eventkit.DeadLetter] = []
        async with asyncio.timeout(PATIENCE):
            while not (letters and {"north", "south"} <= found.keys()):
                await asyncio.sleep(0.05)
                letters = [one async for one in bus.dead_letters("laboratory").list() if one.key == f"lost {run}"]
    for clinic, results in sorted(found.items()):
        print(f"{clinic}: {', '.join(results)}")
    print(f"dead letter, {letters[0].reason}: {letters[0].error_message}")
    print(", ".join(f"{type_} {len(seconds)} times" for type_, seconds in sorted(timing.seconds.items())))


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except eventkit.EventkitError as error:
        sys.exit(f"examples.middleware: {error}")
