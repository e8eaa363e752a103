"""OpenTelemetry: traces and metrics by its conventions for messaging. Needs the extra `otel`.

`EVENTKIT_TRACING=otel` and `EVENTKIT_METRICS=otel` turn them on, or `connect(instruments=[Tracing(), Metrics()])`.
"""

from eventkit.otel.metrics import Metrics
from eventkit.otel.tracing import Tracing

__all__ = ["Metrics", "Tracing"]
