"""`python scripts/grafana.py`: writes docs/grafana.json, a dashboard over what `eventkit.prometheus` tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent.parent / "docs" / "grafana.json"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_OF = 'service=~"$service", group=~"$group"'
_PUBLISHED = 'service=~"$service"'
_HEIGHT, _COLUMNS = 8, 24


def dashboard() -> dict[str, Any]:
    rows = [
        (
            "Now",
            [
                stat(
                    "Groups that do not read", f"sum(1 - min by (service, group) (eventkit_consuming{{{_OF}}}))", red=1
                ),
                stat("Dead letters", f'sum(max by (service, group) (eventkit_backlog{{{_OF}, state="dead"}}))', red=1),
                stat("Circuits open", f"sum(max by (service, group, handler) (eventkit_circuit_open{{{_OF}}}))", red=1),
                stat("Waiting", f'sum(max by (service, group) (eventkit_backlog{{{_OF}, state="ready"}}))'),
                stat("Oldest waiting", f"max(eventkit_backlog_oldest_seconds{{{_OF}}})", unit="s"),
                stat("Handled", _rate("eventkit_messages_total", f'{_OF}, outcome="handled"'), unit="mps"),
            ],
        ),
        (
            "Traffic",
            [
                graph(
                    "Handled",
                    {"{{group}}": _rate("eventkit_messages_total", f'{_OF}, outcome="handled"', "group")},
                    "mps",
                ),
                graph(
                    "What became of messages, but handled",
                    {
                        "{{group}} {{outcome}}": _rate(
                            "eventkit_messages_total", f'{_OF}, outcome!~"handled|skipped"', "group, outcome"
                        )
                    },
                    "mps",
                ),
                graph(
                    "Share of attempts that fail",
                    {
                        "{{group}}": _rate(
                            "eventkit_messages_total", f'{_OF}, outcome=~"retried|held|failed|dead"', "group"
                        )
                        + " / "
                        + _rate("eventkit_messages_total", f'{_OF}, outcome!~"skipped|repeated"', "group")
                    },
                    "percentunit",
                ),
                graph(
                    "Dead letters, by reason",
                    {"{{group}} {{type}} {{reason}}": _increase("eventkit_dead_letters_total", "group, type, reason")},
                    "short",
                ),
            ],
        ),
        (
            "Handlers",
            [
                graph("Handler seconds", _quantiles("eventkit_handler_seconds", _OF, ""), "s"),
                graph(
                    "Handler seconds, p95 by type",
                    _quantiles("eventkit_handler_seconds", _OF, "group, type", (0.95,)),
                    "s",
                ),
                graph("Age when first handled", _quantiles("eventkit_message_age_seconds", _OF, ""), "s"),
                graph(
                    "Age when first handled, p95 by group",
                    _quantiles("eventkit_message_age_seconds", _OF, "group", (0.95,)),
                    "s",
                ),
                graph(
                    "Held by processes, not settled",
                    {"{{group}}": f"sum by (group) (eventkit_in_flight{{{_OF}}})"},
                    "short",
                ),
                graph(
                    "Circuits open",
                    {"{{group}} {{handler}}": f"max by (group, handler) (eventkit_circuit_open{{{_OF}}})"},
                    "short",
                ),
            ],
        ),
        (
            "Backlog",
            [
                graph("Waiting", {"{{group}}": _backlog("ready")}, "short"),
                graph(
                    "Oldest waiting", {"{{group}}": f"max by (group) (eventkit_backlog_oldest_seconds{{{_OF}}})"}, "s"
                ),
                graph("Waiting for a retry", {"{{group}}": _backlog("delayed")}, "short"),
                graph("Dead letters", {"{{group}}": _backlog("dead")}, "short"),
                graph(
                    "In the outbox",
                    {"{{service}} {{state}}": f"max by (service, state) (eventkit_outbox{{{_PUBLISHED}}})"},
                    "short",
                ),
                graph(
                    "Oldest in the outbox",
                    {"{{service}}": f"max by (service) (eventkit_outbox_oldest_seconds{{{_PUBLISHED}}})"},
                    "s",
                ),
            ],
        ),
        (
            "Publishing",
            [
                graph(
                    "Published",
                    {
                        "{{service}} {{type}}": _rate(
                            "eventkit_published_total", f'{_PUBLISHED}, outcome="confirmed"', "service, type"
                        )
                    },
                    "mps",
                ),
                graph(
                    "Not confirmed",
                    {
                        "{{service}} {{type}} {{outcome}}": _rate(
                            "eventkit_published_total", f'{_PUBLISHED}, outcome!="confirmed"', "service, type, outcome"
                        )
                    },
                    "mps",
                ),
                graph("Publish seconds", _quantiles("eventkit_publish_seconds", _PUBLISHED, ""), "s"),
                graph("Request seconds", _quantiles("eventkit_request_seconds", _PUBLISHED, ""), "s"),
            ],
        ),
    ]
    panels: list[dict[str, Any]] = []
    top = 0
    for title, made in rows:
        panels.append(
            {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": _place(0, top, _COLUMNS, 1)}
        )
        top += 1
        across = 6 if title == "Now" else 2
        width, height = _COLUMNS // across, 4 if title == "Now" else _HEIGHT
        for at, panel in enumerate(made):
            panels.append({**panel, "gridPos": _place(at % across * width, top + at // across * height, width, height)})
        top += -(-len(made) // across) * height
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    return {
        "title": "eventkit",
        "uid": "eventkit",
        "description": "What eventkit services do: docs/observability.md.",
        "tags": ["eventkit"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {},
                },
                variable("service", 'label_values({__name__=~"eventkit_consuming|eventkit_published_total"}, service)'),
                variable("group", 'label_values(eventkit_consuming{service=~"$service"}, group)'),
            ]
        },
        "panels": panels,
    }


def variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def stat(title: str, query: str, *, unit: str = "short", red: int | None = None) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if red is not None:
        steps.append({"color": "red", "value": red})
    return {
        "type": "stat",
        "title": title,
        "datasource": _SOURCE,
        "targets": [{"refId": "A", "datasource": _SOURCE, "expr": query, "instant": True}],
        "fieldConfig": {
            "defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}, "noValue": "0"},
            "overrides": [],
        },
        "options": {"colorMode": "background" if red else "value", "reduceOptions": {"calcs": ["lastNotNull"]}},
    }


def graph(title: str, queries: dict[str, str], unit: str) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": title,
        "datasource": _SOURCE,
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for at, (legend, query) in enumerate(queries.items())
        ],
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10}}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _rate(metric: str, labels: str, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{labels}}}[$__rate_interval]))"


def _increase(metric: str, by: str) -> str:
    return f"sum by ({by}) (increase({metric}{{{_OF}}}[$__rate_interval])) > 0"


def _backlog(state: str) -> str:
    """The same number is told by all replicas."""
    return f'max by (group) (eventkit_backlog{{{_OF}, state="{state}"}})'


def _quantiles(metric: str, labels: str, by: str, wanted: tuple[float, ...] = (0.5, 0.95, 0.99)) -> dict[str, str]:
    legend = " ".join(f"{{{{{name}}}}}" for name in by.split(", ") if name)
    grouped = ", ".join(part for part in ("le", by) if part)
    return {
        f"p{round(one * 100)} {legend}".strip(): f"histogram_quantile({one}, sum by ({grouped}) "
        f"(rate({metric}_bucket{{{labels}}}[$__rate_interval])))"
        for one in wanted
    }


def _place(x: int, y: int, w: int, h: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": w, "h": h}


def text() -> str:
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
