"""What EVENTKIT_TRACING=otel and EVENTKIT_METRICS=otel mean.

A program that has set up the SDK is left as it is, and so is one that `opentelemetry-instrument` runs. Where nobody
has, and the SDK is installed with its OTLP exporter, they are set up as the OTEL_* variables say; its resource has the
name of the service that is run, or of the bus that is connected first, unless these name another.
"""

from __future__ import annotations

import logging
import os

from opentelemetry import metrics as metrics_api
from opentelemetry import trace

from eventkit.otel.metrics import Metrics
from eventkit.otel.tracing import Tracing

log = logging.getLogger("eventkit")

_MISSING = (
    "EVENTKIT_%s=otel: nothing is exported, for no SDK is set up, and there is none to set up (%s): "
    "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http, or set up your own before connect()"
)


def tracing(service: str) -> Tracing:
    if _is_of_the_api(trace.get_tracer_provider()):
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            log.warning(_MISSING, "TRACING", error)
        else:
            _name(service)
            provider = TracerProvider()
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
            trace.set_tracer_provider(provider)
    return Tracing()


def metrics(service: str) -> Metrics:
    if _is_of_the_api(metrics_api.get_meter_provider()):
        try:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
            from opentelemetry.sdk.metrics import MeterProvider

            from eventkit.otel.reader import Reader
        except ImportError as error:
            log.warning(_MISSING, "METRICS", error)
        else:
            _name(service)
            wanted = os.environ.get("OTEL_METRICS_EXEMPLAR_FILTER", "trace_based") != "always_off"
            reader = Reader(OTLPMetricExporter(), exemplars=wanted)
            metrics_api.set_meter_provider(MeterProvider([reader]))
            return Metrics(reader=reader)
    return Metrics()


def _is_of_the_api(provider: object) -> bool:
    """Nobody has set up another one."""
    return type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


def _name(service: str) -> None:
    """As eventkit calls it, where OpenTelemetry was told nothing else."""
    said = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    named = any(part.partition("=")[0].strip() == "service.name" for part in said.split(","))
    if service and not named and not os.environ.get("OTEL_SERVICE_NAME"):
        os.environ["OTEL_SERVICE_NAME"] = service
