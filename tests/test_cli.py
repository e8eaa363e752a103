"""The command `eventkit run`: what it says, how it ends, and the log that it writes."""

from __future__ import annotations

import io
import logging
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventkit.log import ConsoleFormatter, to_console, wants_colours
from tests.programs import EVENTKIT, Program
from tests.wanted import wanted

_SLOW = """
import asyncio
import contextlib
import logging
import eventkit

class Work(eventkit.Event, topic="work"):
    seconds: float

service = eventkit.Service("slow")
log = logging.getLogger("slow")

@service.handler
async def work(event: Work) -> None:
    log.info("began")
    await asyncio.sleep(event.seconds)
    log.info("finished")

feeder = eventkit.Service("feeder", lifespan=lambda: feed())

@feeder.handler(group="none")
async def none(event: Work) -> None: ...

@contextlib.asynccontextmanager
async def feed():
    async with eventkit.connect("memory") as bus:
        await bus.publish(Work(seconds={seconds}))
    yield
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A folder with a service whose one message takes a second."""
    (tmp_path / "slow.py").write_text(_SLOW.replace("{seconds}", "1.0"))
    return tmp_path


def run(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> tuple[int, str]:
    with Program(*EVENTKIT, "run", *arguments, cwd=cwd, env=env) as program:
        return program.wait(30), program.output


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


# what it says at start


def test_says_what_it_listens_to_and_where(slow: Path) -> None:
    env = {"EVENTKIT_NAMESPACE": "shop"}
    with Program(*EVENTKIT, "run", "slow:service", "--broker", "memory", cwd=slow, env=env) as program:
        program.wait_for(r"on memory \(this process alone\), namespace shop")
        program.wait_for(r"group +listens to +for\n +slow +topic work +Work\n")
        assert "EVENTKIT_BROKER is not set" not in program.output  # it was asked for by name


def test_warns_that_memory_ends_with_the_process(slow: Path) -> None:
    with Program(*EVENTKIT, "run", "slow:service", cwd=slow) as program:
        program.wait_for(r"WARN .*EVENTKIT_BROKER is not set")


# how it ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(slow: Path, number: signal.Signals) -> None:
    with Program(*EVENTKIT, "run", "slow:service", "slow:feeder", cwd=slow) as program:
        program.wait_for("began")
        program.tell(number)
        assert program.wait(20) == 0
        assert re.search(r"finished .*\n(.*\n)*.*handled Work.*\n(.*\n)*.*stopped slow, feeder", program.output)


def test_a_second_signal_ends_it_at_once(slow: Path) -> None:
    (slow / "slow.py").write_text(_SLOW.replace("{seconds}", "60"))
    with Program(*EVENTKIT, "run", "slow:service", "slow:feeder", cwd=slow) as program:
        program.wait_for("began")
        program.tell(signal.SIGTERM)
        program.wait_for("SIGTERM came: finishing what runs")
        program.tell(signal.SIGTERM)
        assert program.wait(5) == 128 + signal.SIGTERM
        assert "finished" not in program.output


# what is wrong is said in one line


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("slow", "'slow' names no service: write module:service"),
        ("slwo:service", "there is no module 'slwo' here"),
        ("slow:servce", "there is no 'servce' in slow; did you mean slow:service?"),
        ("slow:work", "slow:work is no Service and no list of them, but function; its services: feeder, service"),
        ("wrong:service", "wrong.py:6"),
        ("imports:service", "No module named 'nowhere'"),
    ],
)
def test_a_service_that_is_not_there(slow: Path, target: str, said: str) -> None:
    (slow / "imports.py").write_text("import nowhere\n")
    (slow / "wrong.py").write_text(
        "import eventkit\nclass Paid(eventkit.Event, topic='a'): ...\n"
        "service = eventkit.Service('a')\n\n\n@service.handler\nasync def one(event): ...\n"
    )
    code, output = run(target, cwd=slow)
    assert code == 2
    assert said in output
    assert output.count("\n") == 1, output


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"EVENTKIT_BROKER": "redsi"}, "did you mean 'redis'?"),
        ({"EVENTKIT_BROKR": "redis"}, "EVENTKIT_BROKR is no setting of eventkit; did you mean EVENTKIT_BROKER?"),
        ({"EVENTKIT_PROVISION": "maybe"}, "EVENTKIT_PROVISION: "),
    ],
)
def test_a_wrong_setting(slow: Path, env: dict[str, str], said: str) -> None:
    code, output = run("slow:service", cwd=slow, env=env)
    assert code == 2
    assert said in output
    assert output.count("\n") == 1, output


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "real" in metafunc.fixturenames:
        metafunc.parametrize("real", [name for name in wanted(metafunc.config) if name != "memory"])


def test_an_unreachable_broker(slow: Path, real: str) -> None:
    scheme = {"rabbit": "amqp"}.get(real, real)
    url = f"{scheme}://someone:s3cret@127.0.0.1:{free_port()}"
    with Program(*EVENTKIT, "run", "slow:service", "--broker", real, "--url", url, cwd=slow) as program:
        assert program.wait(40) == 1
        lines = program.output.splitlines()
    assert lines[-1].startswith(f"eventkit: cannot connect to {real}"), lines
    assert "Traceback" not in program.output
    assert "s3cret" not in program.output


# the log


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    before, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = before
    logger.setLevel(level)


def record(text: str, level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("eventkit", level, __file__, 1, text, (), None)
    made.__dict__.update(fields)
    return made


HANDLED = {
    "group": "shipping.audit",
    "message_type": "OrderPlaced",
    "message_id": "01a210be-c91e",
    "correlation_id": "01a210be-c9aa",
}


def test_a_line_has_time_level_service_and_what_happened() -> None:
    line = ConsoleFormatter().format(
        record("shipping.audit: handled OrderPlaced key=7 (01a210be-c91e) in 0.3 ms", **HANDLED)
    )
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3}  INFO   shipping\.audit  handled OrderPlaced key=7 in 0\.3 ms  ~e-c9aa", line
    ), line


def test_a_line_to_act_on_has_the_message_id() -> None:
    line = ConsoleFormatter().format(
        record("shipping.audit: OrderPlaced (01a210be-c91e) failed: no", logging.WARNING, **HANDLED)
    )
    assert line.endswith("WARN   shipping.audit  OrderPlaced failed: no  id=01a210be-c91e  ~e-c9aa"), line


def test_what_a_message_holds_cannot_write_lines_or_colours() -> None:
    line = ConsoleFormatter().format(record("shipping: handled Order key=a\nINFO forged \x1b[31mred", group="shipping"))
    assert line.endswith(r"key=a\nINFO forged \x1b[31mred")


def test_a_traceback_stands_below_its_line() -> None:
    made = record("shipping: eventkit itself failed")
    try:
        raise ValueError("the reason")
    except ValueError as error:
        made.exc_info = (type(error), error, error.__traceback__)
    first, *rest = ConsoleFormatter().format(made).splitlines()
    assert first.endswith("shipping        eventkit itself failed")
    assert rest[-1] == "ValueError: the reason"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_only_at_a_terminal_and_never_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_colours(Terminal())
    assert not wants_colours(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_colours(Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colours(Terminal())


def test_colours_leave_the_text_as_it_is() -> None:
    made = record("shipping.audit: handled OrderPlaced key=7 (01a210be-c91e) in 0.3 ms", **HANDLED)
    coloured = ConsoleFormatter(colours=True).format(made)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == ConsoleFormatter().format(made)


def test_setting_it_up_twice_writes_each_line_once(root: logging.Logger) -> None:
    written = io.StringIO()
    to_console(stream=written)
    to_console(stream=written)
    logging.getLogger("eventkit").info("once")
    logging.getLogger("aiokafka").info("a client's own business")
    assert written.getvalue().count("\n") == 1
