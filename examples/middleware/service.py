"""A clinic's laboratory, for several clinics: their results are sealed, and each is worked for by name."""

import logging
from datetime import timedelta

from eventkit import Command, Event, Service
from examples.middleware.sealed import Sealed
from examples.middleware.tenant import carried_on, from_header, tenant
from examples.middleware.timing import Timing

log = logging.getLogger("laboratory")

# A real service has its keys from a secret store, each as `os.urandom(32)` made it.
KEYS = {"2024": bytes(32), "2025": bytes(range(32))}
sealed = Sealed(KEYS, current="2025")
timing = Timing(slow=timedelta(milliseconds=20))


class SampleTaken(Event, topic="samples", key="patient", serializer=sealed):
    """Its key is readable on the broker, as every key, type and header is: it must be no secret."""

    patient: str
    blood: str


class TestSample(Command, service="laboratory", serializer=sealed):
    patient: str
    blood: str


class ResultFound(Event, topic="results", key="patient", serializer=sealed):
    patient: str
    result: str


laboratory = Service("laboratory", middleware=[timing, from_header], outgoing=[carried_on])
archive = Service("archive", middleware=[from_header])

found: dict[str, list[str]] = {}
"""By tenant."""


@laboratory.handler
async def accept(event: SampleTaken) -> TestSample:
    return TestSample(patient=event.patient, blood=event.blood)


@laboratory.handler
def test(command: TestSample) -> ResultFound:
    log.info("tests a sample of %s", tenant.get())  # a plain function, in a thread: it sees the tenant all the same
    return ResultFound(patient=command.patient, result=f"{len(command.blood)} of 10")


@archive.handler
async def keep(event: ResultFound) -> None:
    found.setdefault(tenant.get(), []).append(f"{event.patient}: {event.result}")
