"""What the weather stations say."""

from datetime import datetime
from decimal import Decimal

from pydantic import BaseModel

from eventkit import Command, Event
from examples.serialization.avro import Avro
from examples.serialization.packed import Msgpack

FIRST = {
    "type": "record",
    "name": "Measured",
    "fields": [{"name": "station", "type": "string"}, {"name": "celsius", "type": "double"}],
}
"""As other teams wrote it until last year; what they left on the broker is still read."""
SCHEMA = {
    "type": "record",
    "name": "Measured",
    "fields": [
        {"name": "station", "type": "string"},
        {"name": "celsius", "type": "double"},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}], "default": None},
    ],
}


class Measured(Event, topic="measures", key="station", serializer=Avro(SCHEMA, older=[FIRST])):
    station: str
    celsius: float
    at: datetime | None = None


class FrostWarned(Event, topic="warnings", key="station"):
    """Its class names no serializer: it is written by that of the service that publishes it."""

    station: str
    celsius: Decimal


class Forecast(BaseModel):
    station: str
    celsius: Decimal


class ForecastWeather(Command[Forecast], service="weather", serializer=Msgpack()):
    """Who sends it and who handles it agree on the format, since both have this class. So does the reply."""

    station: str
