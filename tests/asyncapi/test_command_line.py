"""`eventkit docs json | yaml | check`, as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from eventkit.cli.docs import app

CLI = "import sys; from eventkit.cli.docs import app; app(prog_name='eventkit docs')"
SERVICE = """
from eventkit import Event, Service

class Made(Event, topic="things", key="id"):
    id: int
    {field}

class Asked(Event, topic="things"):
    pass

service = Service("maker")

@service.handler
async def make(event: Asked) -> Made: ...

number = 7
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a service, and the current one."""
    write(tmp_path, "name: str")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def write(folder: Path, field: str) -> None:
    (folder / "maker.py").write_text(SERVICE.format(field=field))


class Said(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def docs(*arguments: str) -> Said:
    """In this process: a new one takes half a second to start."""
    sys.modules.pop("maker", None)
    said = CliRunner().invoke(app, arguments)
    sys.modules.pop("maker", None)
    return Said(said.exit_code, said.stdout, said.stderr)


def process(*arguments: str) -> Said:
    said = subprocess.run([sys.executable, "-B", "-c", CLI, *arguments], capture_output=True, text=True, check=False)
    return Said(said.returncode, said.stdout, said.stderr)


def committed(folder: Path) -> Path:
    made = docs("yaml", "maker:service", "-o", "asyncapi.yaml", "--namespace", "acme")
    assert (made.returncode, made.stderr) == (0, "")
    return folder / "asyncapi.yaml"


def test_json_and_yaml(project: Path) -> None:
    as_json = process("json", "maker:service", "--broker", "kafka", "--asyncapi", "3.1.0", "--title", "Things")
    as_yaml = docs("yaml", "maker:service", "--broker", "kafka", "--asyncapi", "3.1.0", "--title", "Things")
    assert (as_json.returncode, as_json.stderr) == (0, "")
    found = json.loads(as_json.stdout)
    assert found == yaml.safe_load(as_yaml.stdout)
    assert (found["asyncapi"], found["info"]["title"]) == ("3.1.0", "Things")


def test_a_document_for_each_service(project: Path) -> None:
    made = docs("json", "maker:service", "--each", "-o", "docs/events")
    assert made.returncode == 0
    assert json.loads((project / "docs/events/maker.json").read_text())["info"]["title"] == "maker"
    assert "-o" in docs("json", "maker:service", "--each").stderr


def test_nothing_changed(project: Path) -> None:
    committed(project)
    said = docs("check", "asyncapi.yaml", "maker:service", "--exact")
    assert (said.returncode, said.stdout) == (0, "asyncapi.yaml says what the code says.\n")


def test_a_break_fails_until_it_is_accepted(project: Path) -> None:
    committed(project)
    write(project, "label: int = 0")
    said = process("check", "asyncapi.yaml", "maker:service")
    assert said.returncode == 1
    assert "breaking for consumers  field-removed things/Made/name" in said.stdout
    assert "compatible              field-added things/Made/label" in said.stdout
    assert "1 breaking, 1 compatible" in said.stdout

    accept = ("--accept", "field-removed things/Made/name", "--reason", "nobody reads it")
    said = docs("check", "asyncapi.yaml", "maker:service", *accept)
    assert said.returncode == 0
    assert "accepted: nobody reads it" in said.stdout
    entries = yaml.safe_load((project / "asyncapi-accepted.yaml").read_text())["accepted"]
    assert entries == [
        {"change": "field-removed things/Made/name", "before": "string", "after": "", "reason": "nobody reads it"}
    ]
    assert docs("check", "asyncapi.yaml", "maker:service").returncode == 0
    assert docs("check", "asyncapi.yaml", "maker:service", "--exact").returncode == 1  # write it anew

    committed(project)
    said = docs("check", "asyncapi.yaml", "maker:service", "--exact")
    assert said.returncode == 0


def test_an_accepted_change_is_that_change_alone(project: Path) -> None:
    committed(project)
    write(project, "name: int")
    accept = ("--accept", "all", "--reason", "numbers now")
    assert docs("check", "asyncapi.yaml", "maker:service", *accept).returncode == 0
    write(project, "name: bool")
    said = docs("check", "asyncapi.yaml", "maker:service")
    assert said.returncode == 1
    assert "no longer needed in the accepted changes: type-changed things/Made/name" in said.stdout


def test_formats(project: Path) -> None:
    committed(project)
    write(project, "name: int")
    found = json.loads(docs("check", "asyncapi.yaml", "maker:service", "--format", "json").stdout)
    [change] = [change for change in found["changes"] if change["breaks"]]
    assert found["broken"] is True
    assert (change["rule"], change["where"], change["breaks"]) == (
        "type-changed",
        "things/Made/name",
        ["consumers", "producers"],
    )
    assert (change["before"], change["after"]) == ("string", "integer")
    github = docs("check", "asyncapi.yaml", "maker:service", "--format", "github").stdout
    assert github.startswith("::error file=asyncapi.yaml,title=breaking for consumers and producers%3A type-changed")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["check", "missing.yaml", "maker:service"], "missing.yaml: cannot be read: No such file or directory"),
        (["check", "list.yaml", "maker:service"], "list.yaml: it holds list, no mapping"),
        (["check", "empty.yaml", "maker:service"], "empty.yaml: it holds nothing, no mapping"),
        (["check", "broken.yaml", "maker:service"], "broken.yaml: line 2: it is no YAML:"),
        (["check", "broken.json", "maker:service"], "broken.json: line 1: it is no JSON:"),
        (["check", "other.yaml", "maker:service"], "other.yaml: it is no AsyncAPI document"),
        (["check", "old.yaml", "maker:service"], "old.yaml: it is AsyncAPI 2.6.0; eventkit reads 3.x"),
        (["check", "newer.yaml", "maker:service"], "newer.yaml: it is AsyncAPI 4.0.0, newer than 3.1.0"),
        (["check", "format.yaml", "maker:service"], "format.yaml: a newer eventkit wrote it (format 2, known here: 1)"),
        (["check", "dangling.yaml", "maker:service"], "the reference '#/components/messages/No' leads nowhere"),
        (["check", "loop.yaml", "maker:service"], "leads back to itself"),
        (["check", "channels.yaml", "maker:service"], "channels is no mapping"),
        (
            ["check", "asyncapi.yaml", "maker:service", "--format", "xml"],
            "--format xml: it is one of text, json, github",
        ),
        (["check", "asyncapi.yaml", "maker:service", "--accept", "x", "--reason", "y"], "no such breaking change"),
        (["json", "maker:number"], "maker:number is no Service and no list of them, but int"),
        (["json", "nowhere:service"], "there is no module 'nowhere' here"),
        (["json", "maker"], "write module:service"),
        (["json", "maker:service", "--asyncapi", "2.6.0"], "AsyncAPI 3.0.0 and 3.1.0 can be written"),
        (["json", "maker:service", "--broker", "pigeon"], "there is no broker 'pigeon'"),
        (["json", "maker:service", "--broker", "redis", "--url", "redis://"], "url= names no host"),
        (["json", "maker:service", "--namespace", "a b"], "'a b' is no name"),
        (["json", "maker:service", "--broker", "kafka", "--security", "magic"], "security='magic' is none of"),
        (["json", "maker:service", "-o", "maker.py/x.json"], "cannot be written"),
    ],
)
def test_bad_input_is_one_clear_line(project: Path, arguments: list[str], expected: str) -> None:
    committed(project)
    files = {
        "list.yaml": "- 1\n",
        "empty.yaml": "",
        "broken.yaml": "a: 1\n b: [",
        "broken.json": "{nonsense",
        "other.yaml": "openapi: 3.0.0\n",
        "old.yaml": "asyncapi: 2.6.0\n",
        "newer.yaml": "asyncapi: 4.0.0\n",
        "format.yaml": "asyncapi: 3.0.0\nx-eventkit: {format: 2}\n",
        "dangling.yaml": "asyncapi: 3.0.0\nchannels: {c: {messages: {m: {$ref: '#/components/messages/No'}}}}\n",
        "loop.yaml": "asyncapi: 3.0.0\nchannels: {c: {$ref: '#/channels/c'}}\n",
        "channels.yaml": "asyncapi: 3.0.0\nchannels: [1]\n",
    }
    for name, text in files.items():
        (project / name).write_text(text)
    said = docs(*arguments)
    assert said.returncode == 2
    assert said.stderr.startswith("eventkit: ")
    assert expected in said.stderr
    assert said.stderr.count("\n") == 1
    assert said.stdout == ""


def test_an_accepted_change_needs_a_reason(project: Path) -> None:
    committed(project)
    write(project, "name: int")
    said = docs("check", "asyncapi.yaml", "maker:service", "--accept", "all")
    assert (said.returncode, "--reason" in said.stderr) == (2, True)
    (project / "asyncapi-accepted.yaml").write_text("accepted:\n- change: type-changed things/Made/name\n")
    said = docs("check", "asyncapi.yaml", "maker:service")
    assert (said.returncode, "entry 1 has no reason" in said.stderr) == (2, True)
