"""Options of `eventkit run`: which service, from what environment, in what form it logs, and starting anew."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from eventkit.cli import app, candidates
from eventkit.cli import run as cli_run
from eventkit.cli.environment_file import load_environment
from eventkit.errors import SettingsError
from eventkit.loading import NotLoaded
from eventkit.log import ConsoleFormatter
from eventkit.log_json import JsonFormatter, to_json
from eventkit.processes.reloading import run_reloading
from tests.programs import EVENTKIT, Program

_SHOP = """
from contextlib import asynccontextmanager

import eventkit
from eventkit import Event, Service

class Sold(Event, topic="sales", key="item"):
    item: str

@asynccontextmanager
async def lifespan():
    async with eventkit.connect("memory") as bus:
        await bus.publish(Sold(item="lamp"), correlation_id="the-chain")
    yield

shop = Service("shop")
feeder = eventkit.Service("feeder", lifespan=lambda: lifespan())

@shop.handler
async def sold(event: Sold) -> None: ...

@feeder.handler(group="none")
async def none(event: Sold) -> None: ...
"""
_ONE = """
import eventkit

class Sold(eventkit.Event, topic="{topic}"):
    item: str

service = eventkit.Service("{name}")

@service.handler
async def sold(event: Sold) -> None: ...
"""


def one(name: str = "shop", topic: str = "sales") -> str:
    return _ONE.format(name=name, topic=topic)


def run(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> tuple[int, str]:
    with Program(*EVENTKIT, "run", *arguments, cwd=cwd, env=env) as program:
        return program.wait(30), program.output


# which service


def test_the_only_service_of_the_folder_is_found(tmp_path: Path) -> None:
    package = tmp_path / "src" / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "work.py").write_text(one())
    with Program(*EVENTKIT, "run", cwd=tmp_path) as program:
        program.wait_for(r"shop +topic sales +Sold\n")
        program.tell(signal.SIGTERM)
        assert program.wait(20) == 0


def test_none_and_several_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotLoaded, match=r"there is no `name = Service\(...\)` at the top of a module in this folder"):
        cli_run._only()
    (tmp_path / "shop.py").write_text(_SHOP)
    code, output = run(cwd=tmp_path)
    assert (code, output.count("\n")) == (2, 1), output
    assert output == "eventkit: this folder has 2 services: say which to run, of shop:feeder shop:shop\n"


def test_candidates_are_what_a_module_makes_of_eventkits_service(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("a.py", "import eventkit as ek\none: object = ek.Service('a')\n")
    write("b/__init__.py", "from eventkit import Service as S\ntwo = S('b')\n")
    write("c.py", "from elsewhere import Service\nno = Service('c')\n")
    write("d.py", "from eventkit import Service\ndef make():\n    no = Service('d')\n")
    write("e.py", "from eventkit import Service\nbroken = Service(\n")
    write("tests/f.py", "from eventkit import Service\nno = Service('f')\n")
    write("test_g.py", "from eventkit import Service\nno = Service('g')\n")
    write(".venv/h.py", "from eventkit import Service\nno = Service('h')\n")
    assert candidates.services(tmp_path) == ["a:one", "b:two"]


# the environment


def test_an_environment_file_says_what_the_environment_does_not(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(one())
    (tmp_path / "shop.env").write_text("# local\nEVENTKIT_BROKER=redsi\nexport EVENTKIT_NAMESPACE='shop'\n")
    code, output = run("--env-file", "shop.env", cwd=tmp_path)
    assert (code, output.count("\n")) == (2, 1), output
    assert "did you mean 'redis'?" in output
    env = {"EVENTKIT_BROKER": "memory"}
    with Program(*EVENTKIT, "run", "--env-file", "shop.env", cwd=tmp_path, env=env) as program:
        program.wait_for(r"on memory")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "shop.env cannot be read: No such file"),
        (b"A=1\nwhat s3cret is this\n", r"shop.env, line 2: it is no NAME=VALUE"),
        (b"A=1\nNAKED\n", r"shop.env, line 2: it is no NAME=VALUE"),
        (b"A=\xff\n", r"shop.env cannot be read: it is no UTF-8"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: bytes | None, said: str) -> None:
    file = tmp_path / "shop.env"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(SettingsError, match=said) as caught:
        load_environment(file)
    assert "s3cret" not in str(caught.value)


def test_values_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET", "before")
    for name in ("QUOTED", "EMPTY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (tmp_path / "a.env").write_text('SET=after\nQUOTED="a # b"\nEMPTY=\n')
    load_environment(tmp_path / "a.env")
    assert (os.environ["SET"], os.environ["QUOTED"], os.environ["EMPTY"]) == ("before", "a # b", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--log-format", "xml"], "--log-format xml: it is console or json"),
        (["--log-level", "loud"], "--log-level loud: it is debug, info, warning or error"),
        (["--reload", "--workers", "2"], "--reload runs one process: leave --workers out"),
    ],
)
def test_options_that_are_wrong(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["run", *arguments])
    assert (done.exit_code, done.output) == (2, f"eventkit: {said}\n")


# the log


def test_json_lines_have_what_a_record_knows(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(_SHOP)
    with Program(*EVENTKIT, "run", "--log-format", "json", "shop:shop", "shop:feeder", cwd=tmp_path) as program:
        program.wait_for("handled Sold")
        program.tell(signal.SIGTERM)
        assert program.wait(20) == 0
        lines = [json.loads(line) for line in program.output.splitlines()]  # all of them
    handled = next(line for line in lines if "handled Sold" in line["message"] and line["group"] == "shop")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", handled["time"])
    assert (handled["level"], handled["logger"], handled["service"]) == ("info", "eventkit", "shop")
    assert (handled["message_type"], handled["message_key"], handled["attempt"]) == ("Sold", "lamp", 1)
    assert (handled["correlation_id"], len(handled["message_id"])) == ("the-chain", 36)
    assert 0 <= handled["duration_ms"] < 10_000
    listens = [line for line in lines if "listens to" in line["message"]]
    assert listens[0]["message"] == "shop: listens to topic sales for Sold"


def test_what_ends_it_is_a_json_line_too(tmp_path: Path) -> None:
    code, output = run("nowhere:service", "--log-format", "json", cwd=tmp_path)
    assert code == 2
    said = json.loads(output)
    assert said["level"] == "critical"
    assert said["message"].startswith("there is no module 'nowhere' here")


def formatted(record: logging.LogRecord, **keywords: Any) -> dict[str, Any]:
    text = JsonFormatter(**keywords).format(record)
    assert text.isascii()
    assert len(text.splitlines()) == 1
    line = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(line, dict)
    return line


def record(text: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("eventkit", logging.INFO, __file__, 1, text, (), None)
    made.__dict__.update(fields)
    return made


def test_what_a_message_holds_stays_in_its_line() -> None:
    line = formatted(record("handled key=a\n{\u2028}\x1b[31m", message_key="a\n\ud800"))
    assert line["message"] == "handled key=a\n{\u2028}\x1b[31m"
    assert line["message_key"] == "a\n\ud800"


def test_whatever_a_record_is_given_makes_a_line() -> None:
    circle: list[object] = []
    circle.append(circle)
    given = {"number": float("nan"), "circle": circle, "odd": {(1, 2): 3}, "set": {1}, "level": "mine", "none": None}
    line = formatted(record("said", **given), worker=3)
    assert line["level"] == "info", "ours stand"
    assert line["worker"] == 3
    assert (line["number"], line["set"]) == ("nan", "{1}")
    assert "none" not in line


def test_an_exception_is_one_text() -> None:
    made = record("it failed")
    try:
        raise ValueError("the reason")
    except ValueError as error:
        made.exc_info = (type(error), error, error.__traceback__)
    assert formatted(made)["exception"].endswith("ValueError: the reason")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    before, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = before
    logger.setLevel(level)


def test_the_form_that_was_set_last_stands(root: logging.Logger) -> None:
    written = io.StringIO()
    to_json(stream=written)
    to_json(stream=written)
    logging.getLogger("eventkit").info("once")
    assert json.loads(written.getvalue())["message"] == "once"


def test_console_lines_tell_the_worker() -> None:
    line = ConsoleFormatter(worker=2).format(record("shop: handled Sold in 0.3 ms", group="shop"))
    assert re.fullmatch(r"\S+  INFO   #2  shop            handled Sold in 0\.3 ms", line), line


# starting anew


def test_reload_starts_anew_and_survives_mistakes(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    file = tmp_path / "shop.py"
    file.write_text(one())
    with Program(*EVENTKIT, "run", "--reload", "shop:service", cwd=tmp_path) as program:
        program.wait_for(r"shop +topic sales +Sold\n")
        file.write_text(one(topic="bargains"))
        program.wait_for(r"shop\.py changed: starting again\n(.*\n)*.*stopped shop(.*\n)*.*topic bargains +Sold\n")
        file.write_text("import json\n\ndef load():\n    return json.loads('{')\n\nload()\n")
        program.wait_for(r"shop cannot be imported: JSONDecodeError: .* \(shop\.py:6 > shop\.py:4\)\n")
        program.wait_for(r"WARN .*exit code 2\): waiting for the next change")
        file.write_text(one(topic="rests"))
        program.wait_for(r"topic rests +Sold\n")
        program.tell(signal.SIGTERM)
        assert program.wait(20) == 0, program.output
        assert "Traceback" not in program.output


def test_reload_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(SettingsError) as caught:
        run_reloading(tmp_path, [], lambda: pytest.fail("started without"))
    assert str(caught.value) == (
        "--reload needs watchfiles, which is not installed: pip install 'faststream-eventkit[reload]'"
    )
