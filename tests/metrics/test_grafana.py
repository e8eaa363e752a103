"""The dashboard in docs/ asks for what is really told, with labels that are really there."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import eventkit
from eventkit import Circuit, Service
from eventkit.adapter import Backlog, Group
from eventkit.contract.checks import eventually, fresh_namespace
from eventkit.prometheus import Metrics
from tests.programs import ROOT

FILE = ROOT / "docs" / "grafana.json"
PAGE = ROOT / "docs" / "observability.md"
_ASKED = re.compile(r"\b(eventkit_\w+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
_BY = re.compile(r"\bby \(([^)]*)\)")


class Asked(eventkit.Event, topic="grafana"):
    number: int


class Quote(eventkit.Command[int], service="asking"):
    number: int


class Store:
    async def outbox(self) -> Stands:
        return Stands()


class Stands(NamedTuple):
    waiting: int = 1
    refused: int = 1
    oldest: timedelta | None = timedelta(seconds=1)


@pytest.fixture(scope="module")
def told() -> dict[str, set[str]]:
    """The labels of each sample, by its name."""

    async def story() -> str:
        metrics = Metrics(CollectorRegistry())
        service = Service("asking")

        @service.handler(circuit=Circuit())
        async def asked(event: Asked) -> None: ...

        @service.handler
        async def quote(command: Quote) -> int:
            return 1

        async def measure(group: Group) -> Backlog:
            return Backlog(ready=1, in_flight=1, delayed=1, dead=1, oldest=timedelta(seconds=1))

        async with (
            eventkit.connect("memory", namespace=fresh_namespace(), instruments=[metrics]) as bus,
            bus.run(service) as running,
        ):
            bus.adapter.measure = measure  # type: ignore[method-assign]
            await bus.publish(Asked(number=1))
            assert await bus.request(Quote(number=1)) == 1
            await eventually(lambda: running.counts["asking"].handled == 2, "they are handled")
            with bus.relaying(Store()):
                return (await metrics.page()).body.decode()

    families = list(text_string_to_metric_families(asyncio.run(story())))
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def queries() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def check(query: str, told: dict[str, set[str]]) -> None:
    names = _ASKED.findall(query)
    assert names, f"it asks for nothing of ours: {query}"
    for name, said in names:
        assert name in told, f"nothing tells {name}: {query}"
        assert set(_LABEL.findall(said)) <= told[name], query
    for by in _BY.findall(query):
        wanted = {label.strip() for label in by.split(",") if label.strip()}
        assert all(wanted <= told[name] for name, _ in names), f"{query}: {wanted}"
    assert query.count("(") == query.count(")")
    assert query.count("{") == query.count("}")


def test_it_asks_for_what_is_told(told: dict[str, set[str]]) -> None:
    asked = list(queries())
    for query in asked:
        check(query, told)
    names = {name for query in asked for name, _ in _ASKED.findall(query)}
    told_of = {re.sub("_(bucket|sum|count)$", "", name) for name in told}
    assert told_of == {re.sub("_bucket$", "", name) for name in names}, "every metric is shown somewhere"


def test_the_alerts_of_the_page_ask_for_what_is_told(told: dict[str, set[str]]) -> None:
    yaml = pytest.importorskip("yaml")
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    rules = [
        rule for block in blocks for group in (yaml.safe_load(block).get("groups") or ()) for rule in group["rules"]
    ]
    assert len(rules) >= 6
    for rule in rules:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule
        check(rule["expr"], told)


def test_the_page_lists_every_metric(told: dict[str, set[str]]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    missing = {name for name in told if f"`{re.sub('_(bucket|sum|count)$', '', name)}`" not in page}
    assert not missing


def test_its_structure() -> None:
    board = dashboard()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    variables = {one["name"] for one in board["templating"]["list"]}
    assert variables == {"datasource", "service", "group"}
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells, f"{panel['title']} lies on another panel"
        assert place["x"] + place["w"] <= 24
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= {*variables, "__rate_interval"}
        refs = [target["refId"] for target in panel.get("targets", ())]
        assert len(refs) == len(set(refs))


def test_it_is_what_the_script_writes() -> None:
    path = Path(ROOT / "scripts" / "grafana.py")
    spec = importlib.util.spec_from_file_location("grafana", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert FILE.read_text(encoding="utf-8") == module.text(), "run python scripts/grafana.py"
