"""OpenTelemetry: traces and metrics by its conventions for messaging. Needs the extra `otel`.

`EVENTKIT_TRACING=otel` and `EVENTKIT_METRICS=otel` turn them on, or `connect(instruments=[Tracing(), Metrics()])`.
"""

try:
    from eventkit.otel.metrics import Metrics
    from eventkit.otel.tracing import Tracing
except ModuleNotFoundError as error:
    raise ImportError(
        f"eventkit.otel needs OpenTelemetry ({error}): pip install 'faststream-eventkit[otel]'"
    ) from error

__all__ = ["Metrics", "Tracing"]
