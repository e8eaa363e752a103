"""The weather service: Avro in, msgpack out."""

import asyncio
from decimal import Decimal

from eventkit import GiveUp, Service
from examples.serialization.messages import Forecast, ForecastWeather, FrostWarned, Measured
from examples.serialization.packed import Msgpack

weather = Service("weather", serializer=Msgpack())

last: dict[str, Decimal] = {}


@weather.handler
async def measured(event: Measured) -> FrostWarned | None:
    last[event.station] = celsius = Decimal(str(round(event.celsius, 1)))
    return FrostWarned(station=event.station, celsius=celsius) if celsius < 0 else None


@weather.handler
async def forecast(command: ForecastWeather) -> Forecast:
    if command.station not in last:
        raise GiveUp(f"no measurement of {command.station} yet")
    return Forecast(station=command.station, celsius=last[command.station] - 1)


alarms = Service("alarms", serializer=Msgpack())
warned = asyncio.Event()


@alarms.handler
async def warn(event: FrostWarned) -> None:
    print(f"frost at {event.station}: {event.celsius} °C", flush=True)
    warned.set()
