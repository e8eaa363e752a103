"""Avro and msgpack on the wire, on the broker of the environment.

python -m examples.serialization
eventkit docs build examples.serialization.service:weather -o site/    (its messages say their content types)
"""

import asyncio
import sys
from datetime import UTC, datetime

import eventkit
from examples.serialization.messages import ForecastWeather, Measured
from examples.serialization.service import alarms, warned, weather

PATIENCE = 30.0


async def main() -> None:
    async with eventkit.connect(service="station") as bus, bus.run(weather, alarms):
        event = Measured(station="Sonnblick", celsius=-7.25, at=datetime.now(UTC))
        written = bus.encode(event)
        print(f"{len(written.body or b'')} bytes of {written.headers['content-type']}: {event!r}")
        await bus.publish(event)
        async with asyncio.timeout(PATIENCE):
            await warned.wait()
        forecast = await bus.request(ForecastWeather(station="Sonnblick"))
        print(f"tomorrow {forecast.celsius} °C, said a reply in msgpack")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except eventkit.EventkitError as error:
        sys.exit(f"examples.serialization: {error}")
