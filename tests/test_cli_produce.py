"""`eventkit publish`, `send` and `request`, as processes: beside running services, and where they are wrongly used."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

import eventkit
from eventkit import Context, GiveUp, Reject, Retry, Service
from eventkit.asyncapi.snippets import at_prompt
from eventkit.contract.checks import eventually, fresh_namespace
from eventkit.testing.brokers import Broker
from tests import selling
from tests.programs import EVENTKIT, environment
from tests.prompt import Done, each
from tests.selling import Ask, Book, OrderPlaced, Quote, Tick
from tests.wanted import wanted

_SHOP = """
import eventkit
from messages import OrderPlaced

service = eventkit.Service("shop")

@service.handler
async def placed(event: OrderPlaced) -> None: ...
"""


@dataclass
class Place:
    """Where the commands run, and which broker they meet."""

    folder: Path
    env: Mapping[str, str]

    def run(self, *arguments: str, given: str | bytes | None = None) -> Done:
        data = given.encode() if isinstance(given, str) else given
        ended = subprocess.run(
            [*EVENTKIT, *arguments],
            cwd=self.folder,
            env=environment(self.env),
            timeout=60,
            capture_output=True,
            check=False,
            **({"stdin": subprocess.DEVNULL} if data is None else {"input": data}),
        )
        return Done(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    def each(self, *commands: tuple[str, ...]) -> list[Done]:
        return each(self.folder, commands, self.env)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "real" in metafunc.fixturenames:
        metafunc.parametrize("real", [name for name in wanted(metafunc.config) if name != "memory"])


@pytest.fixture
def alone(tmp_path: Path) -> Place:
    (tmp_path / "messages.py").write_text(Path(selling.__file__).read_text())
    (tmp_path / "shop.py").write_text(_SHOP)
    return Place(tmp_path, {})


@pytest.fixture
def place(alone: Place, real: str, broker: Callable[[str], Broker]) -> Place:
    env = {"EVENTKIT_BROKER": real, "EVENTKIT_URL": broker(real).url, "EVENTKIT_NAMESPACE": fresh_namespace()}
    return Place(alone.folder, env)


class Shop:
    """The service of the story, and what came to it."""

    def __init__(self) -> None:
        self.orders: list[tuple[OrderPlaced, Context, datetime]] = []
        self.ticks: list[int] = []
        self.ids: dict[int, set[str]] = {}
        self.booked: list[tuple[str, str]] = []
        self.service = Service("shop", retry=Retry(attempts=1))

        @self.service.handler
        async def placed(event: OrderPlaced, context: Context) -> None:
            self.orders.append((event, context, datetime.now(UTC)))

        @self.service.handler
        async def tick(event: Tick, context: Context) -> None:
            self.ticks.append(event.number)
            self.ids.setdefault(event.number, set()).add(context.id)

        @self.service.handler
        async def book(command: Book, context: Context) -> None:
            self.booked.append((command.order_id, context.id))

        @self.service.handler
        async def ask(command: Ask) -> Quote:
            if command.wish == "no":
                raise Reject("we do not sell\nthat")
            if command.wish == "broken":
                raise GiveUp("the till is stuck")
            if command.wish == "slow":
                await asyncio.sleep(3)
            return Quote(price=Decimal("7.50"), note=f"für {command.wish}\x9b")


@asynccontextmanager
async def running(place: Place) -> AsyncIterator[Shop]:
    shop = Shop()
    env = place.env
    bus = eventkit.connect(env["EVENTKIT_BROKER"], env["EVENTKIT_URL"], namespace=env["EVENTKIT_NAMESPACE"])
    async with bus, bus.run(shop.service):
        yield shop


# beside running services


def test_events_reach_their_handlers(place: Place) -> None:
    async def story() -> None:
        async with running(place) as shop:
            one, delayed, lines, many = await asyncio.gather(
                asyncio.to_thread(
                    place.run,
                    *("publish", "OrderPlaced", '{"order_id": "?", "total": 7.10, "by": "Ada"}', "--key", "k 1"),
                    *("-H", "tenant=a=b", "--header", "x-of=é", "--correlation-id", "c1", "--id", "i1", "--json"),
                ),
                asyncio.to_thread(place.run, "publish", "OrderPlaced", '{"order_id": "late"}', "--delay", "2s"),
                asyncio.to_thread(
                    place.run,
                    *("publish", "messages:Tick", "-"),
                    given='\ufeff{"number": 1}\r\n\n{"number": "two"}\n{"number": 3}\n{"number" 4}\n{"number": 5}',
                ),
                asyncio.to_thread(
                    place.run, "publish", "Tick", '{"number": 9}', "--count", "4", "--json", "--from", "messages"
                ),
            )
            # what the page shows for a message is that command
            shown = at_prompt("event", "messages", "Tick", {"number": 7}, False)
            assert shlex.split(shown)[:3] == ["eventkit", "publish", "messages:Tick"]
            assert (await asyncio.to_thread(place.run, *shlex.split(shown)[1:])).code == 0
            assert (one.code, one.err) == (0, "")
            assert json.loads(one.out) == {
                "id": "i1",
                "type": "OrderPlaced",
                "key": "k 1",
                "correlation_id": "c1",
                "channel": "topic:orders",
            }
            assert delayed.code == 0, delayed
            broker = place.env["EVENTKIT_BROKER"]
            assert re.fullmatch(rf"published to topic orders on {broker}: OrderPlaced [\w-]{{36}}\n", delayed.out)
            assert lines.code == 1
            assert lines.complaints == [
                "eventkit: line 3: Tick.number: Input should be a valid integer, unable to parse string as an integer",
                "eventkit: line 5: malformed JSON: expected `:` at line 1 column 11",
            ]
            assert re.fullmatch(rf"published to topic ticks on {broker}: 3 Tick, in [\d.]+ s\n", lines.out)
            assert (many.code, many.err) == (0, "")
            ids = [json.loads(line)["id"] for line in many.out.splitlines()]
            assert len(set(ids)) == 4
            await eventually(lambda: sorted(shop.ticks) == [1, 3, 5, 7, 9, 9, 9, 9], "all ticks")
            assert shop.ids[9] == set(ids)
            await eventually(lambda: len(shop.orders) == 2, "both orders")
            (event, context, _), (late, about, came) = sorted(shop.orders, key=lambda one: one[0].order_id)
            assert (event.total, event.placed_by) == (Decimal("7.10"), "Ada")
            assert (context.id, context.key, context.correlation_id) == ("i1", "k 1", "c1")
            assert {name: context.headers[name] for name in ("tenant", "x-of")} == {"tenant": "a=b", "x-of": "é"}
            published = datetime.fromisoformat(about.delivery.message.headers["ce-time"])
            assert late.order_id == "late"
            assert came - published >= timedelta(seconds=1.9)

    asyncio.run(story())


def test_commands_are_sent_and_answered(place: Place) -> None:
    async def story() -> None:
        async with running(place) as shop:
            sent, reply, rejected, broken, slow, unowned, unasked, several = await asyncio.gather(
                asyncio.to_thread(place.run, "send", "Book", '{"order_id": "7"}', "--id", "b1", "--json"),
                asyncio.to_thread(place.run, "request", "Ask", '{"wish": "tea"}', "--from", "messages"),
                asyncio.to_thread(place.run, "request", "shop.ask", '{"wish": "no"}'),
                asyncio.to_thread(place.run, "request", "Ask", '{"wish": "broken"}'),
                asyncio.to_thread(place.run, "request", "messages:Ask", '{"wish": "slow"}', "--timeout", "700ms"),
                asyncio.to_thread(place.run, "send", "Unowned", "{}", "--count", "3000"),
                asyncio.to_thread(place.run, "request", "Unowned", "{}"),
                asyncio.to_thread(
                    place.run, "request", "Ask", given='{"wish": "a"}\n{}\n{"wish": "no"}\n{"wish": "b"}\n'
                ),
            )
            assert (sent.code, sent.err) == (0, "")
            assert json.loads(sent.out)["id"] == "b1"
            assert (reply.code, reply.err) == (0, "")
            assert reply.out == '{"price":"7.50","note":"für tea\\u009b"}\n'
            assert rejected == Done(4, "", "eventkit: Ask was rejected by shop: we do not sell\\nthat\n")
            assert broken == Done(5, "", "eventkit: Ask failed in shop: GiveUp: the till is stuck\n")
            assert slow.code == 6
            assert slow.err.startswith("eventkit: no reply to Ask within 0.7 s; it may still be carried out")
            for nobody in (unowned, unasked):
                assert nobody.code == 3
                assert "the service 'nobody' has no inbox on this broker: start it once" in nobody.err
                assert "Traceback" not in nobody.err
            assert len(unowned.complaints) == 2  # it does not go on in vain
            assert len(unasked.complaints) == 1
            assert several.code == 1
            assert [json.loads(line)["note"] for line in several.out.splitlines()] == ["für a\x9b", "für b\x9b"]
            assert several.complaints == [
                "eventkit: line 2: Ask.wish: Field required",
                "eventkit: line 3: Ask was rejected by shop: we do not sell\\nthat",
            ]
            await eventually(lambda: shop.booked == [("7", "b1")], "the command")

    asyncio.run(story())


def test_lines_are_sent_as_they_come_in_order_and_at_their_rate(place: Place) -> None:
    """A stream that goes on is not waited for; Ctrl-C says how far it came."""

    async def story() -> None:
        async with running(place) as shop:
            began = time.monotonic()
            slow = await asyncio.to_thread(
                place.run,
                *("publish", "OrderPlaced", "--key", "one", "--rate", "20"),
                given="".join(f'{{"order_id": "", "total": {number}}}\n' for number in range(30)),
            )
            assert slow.code == 0, slow
            assert time.monotonic() - began >= 28 / 20
            process = subprocess.Popen(
                [*EVENTKIT, "publish", "Tick"],
                cwd=place.folder,
                env=environment(place.env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                assert process.stdin is not None
                for number in range(2):
                    process.stdin.write(f'{{"number": {number}}}\n')
                    process.stdin.flush()
                    await eventually(lambda wanted=number: shop.ticks[-1:] == [wanted], "a line", 30)  # type: ignore[misc]
                process.send_signal(signal.SIGINT)
                _, said = await asyncio.to_thread(process.communicate, timeout=30)
                assert process.returncode == 130
                assert said == "eventkit: ended early: 2 were published, and what was under way may have been\n"
            finally:
                process.kill()
                await asyncio.to_thread(process.wait)
            await eventually(lambda: len(shop.orders) == 30, "all lines")
            assert [int(event.total) for event, *_ in shop.orders] == list(range(30))

    asyncio.run(story())


# what can be told without a broker


def test_what_is_wrong_is_one_line_for_each_thing(alone: Place) -> None:
    known = "known here: OrderPlaced, Book, Tick, Unowned, shop.ask"
    cases: list[tuple[tuple[str, ...], list[str]]] = [
        (
            ("publish", "OrderPlacd"),
            [f"no message 'OrderPlacd' is declared in this folder; did you mean OrderPlaced? {known}"],
        ),
        (("publish",), ["say which event to publish: OrderPlaced, Tick"]),
        (("request",), ["say which command to request: Book, Unowned, shop.ask"]),
        (("send", "--from", "messages"), ["say which command to send: Book, Unowned, shop.ask"]),
        (
            ("publish", "Book", "{}"),
            [
                (
                    "Book is a command, which is sent to the service that owns it: eventkit send Book, "
                    "or eventkit request Book to wait for its reply"
                )
            ],
        ),
        (("send", "Tick"), ["Tick is an event, which is published: eventkit publish Tick"]),
        (("request", "messages:Tick"), ["Tick is an event, which is published: eventkit publish messages:Tick"]),
        (
            ("publish", "OrderPlaced", '{"total": "x", "By": 1}'),
            [
                "OrderPlaced.order_id: Field required",
                "OrderPlaced.total: Input should be a valid decimal",
                "OrderPlaced.By: there is no such field; did you mean by?",
            ],
        ),
        (("publish", "Tick", '{"number": 1, "more": 2}'), ["Tick.more: there is no such field; its fields: number"]),
        (("publish", "Tick", "[1]"), ["Tick: Input should be an object"]),
        (
            ("publish", "Tick", "{number: 1}"),
            [
                (
                    "malformed JSON: key must be a string at line 1 column 2; put it in single quotes, so that the "
                    """shell leaves its double quotes: '{"name": "value"}'"""
                )
            ],
        ),
        (("publish", "Tick", '{"number": 1}', "--key", "7"), ["--key: Tick has no key, since its class says no key="]),
        (("publish", "Tick", '{"number": 1}', "--header", "tenant"), ["--header tenant: write it as name=value"]),
        (
            ("publish", "Tick", '{"number": 1}', "--header", "ce-id=1"),
            ["header 'ce-id' is reserved: choose a name of your own, such as 'x-ce-id'"],
        ),
        (("publish", "Tick", '{"number": 1}', "--delay", "soon"), ["--delay soon: say how long: 500ms, 90s, 5m or 2h"]),
        (
            ("publish", "Tick", '{"number": 1}', "--delay", "48h"),
            ["delay=2 days, 0:00:00: it lies between zero and 24 hours"],
        ),
        (("publish", "Tick", '{"number": 1}', "--rate", "0"), ["--rate 0: it is more than 0 a second"]),
        (
            ("publish", "Tick", '{"number": 1}', "--count", "2", "--id", "x"),
            ["--id is of one message: give its JSON, without --count"],
        ),
        (
            ("publish", "Tick", "-", "--count", "2"),
            ["--count repeats the JSON of the command line; of standard input each line is sent once"],
        ),
        (
            ("publish", "messages:Tik"),
            [
                (
                    "there is no 'Tik' in messages; did you mean messages:Tick? known here: messages:Tick, "
                    "messages:Ask, messages:Book, messages:OrderPlaced, messages:Unowned"
                )
            ],
        ),
        (("publish", "Tick", "--from", "shop:servce"), ["there is no 'servce' in shop; did you mean shop:service?"]),
    ]
    asked = alone.each(*(words for words, _ in cases))
    for (words, expected), done in zip(cases, asked, strict=True):
        assert (done.code, done.out) == (2, ""), words
        assert [line.removeprefix("eventkit: ") for line in done.complaints] == expected[: len(done.complaints)], words
        assert len(done.complaints) == len(expected), words


def test_memory_is_refused_since_nobody_would_get_it(alone: Place) -> None:
    asked = alone.each(
        ("publish", "Tick", '{"number": 1}'),
        ("send", "Book", '{"order_id": "1"}', "--broker", "memory"),
        ("request", "Ask", '{"wish": "tea"}'),
    )
    for done in asked:
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("eventkit: the memory broker lives inside one process"), done
        assert len(done.complaints) == 1


def test_a_broker_that_cannot_be_reached_is_one_line(alone: Place, real: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"{ {'rabbit': 'amqp'}.get(real, real) }://someone:s3cret@127.0.0.1:{taken.getsockname()[1]}"
        done = alone.run("publish", "Tick", '{"number": 1}', "--broker", real, "--url", url)
    assert (done.code, done.out) == (1, "")
    assert done.complaints[-1].startswith(f"eventkit: cannot connect to {real}"), done
    assert "s3cret" not in done.err
    assert "Traceback" not in done.err


def test_a_class_that_two_modules_declare_must_be_chosen(alone: Place) -> None:
    (alone.folder / "other.py").write_text("import eventkit as ek\nclass Tick(ek.Event, topic='other'):\n    x: int\n")
    (alone.folder / "test_other.py").write_text("raise SystemExit('a test was imported')\n")
    (alone.folder / "script.py").write_text("raise SystemExit('a script was imported')\n")
    many, one, by_module = alone.each(
        ("publish", "Tick", "{}"),
        ("publish", "other:Tick", '{"x": ""}'),
        ("publish", "Tick", '{"x": ""}', "--from", "other"),
    )
    assert many.err == "eventkit: there is more than one Tick: say which, messages:Tick or other:Tick\n"
    for done in (one, by_module):
        assert done.err.startswith("eventkit: Tick.x: Input should be a valid integer"), done


class Terminal:
    """A terminal that a command writes its errors to."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self._written: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while piece := os.read(self._ours, 4096):
                self._written.append(piece)
        except OSError:
            return  # nobody writes any more

    def text(self) -> str:
        os.close(self.theirs)
        self._thread.join(10)
        os.close(self._ours)
        return b"".join(self._written).decode()


def test_a_bar_shows_how_far_it_came(place: Place) -> None:
    """On a terminal's standard error alone: standard output stays clean."""
    (place.folder / "ticks.jsonl").write_text("".join(f'{{"number": {number}}}\n' for number in range(3_000)))
    terminal = Terminal()
    env = {**environment(place.env), "TERM": "xterm", "COLUMNS": "120"}
    with (place.folder / "ticks.jsonl").open() as lines:
        ended = subprocess.run(
            [*EVENTKIT, "publish", "Tick", "--rate", "4000"],
            cwd=place.folder,
            env=env,
            stdin=lines,
            stdout=subprocess.PIPE,
            stderr=terminal.theirs,
            timeout=60,
            check=False,
            text=True,
        )
    shown = terminal.text()
    assert ended.returncode == 0, shown
    assert re.fullmatch(r"published to topic ticks on \w+: 3,000 Tick, in [\d.]+ s\n", ended.stdout)
    assert "━" in shown
    assert re.search(r"\d+%.* [\d,]+ sent, [\d,]+/s", shown), shown


def test_a_terminal_without_json_is_told_what_to_write(alone: Place) -> None:
    terminal = Terminal()
    ended = subprocess.run(
        [*EVENTKIT, "publish", "OrderPlaced"],
        cwd=alone.folder,
        env=environment(alone.env),
        stdin=terminal.theirs,
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
    )
    terminal.text()
    assert ended.returncode == 2
    assert ended.stderr == (
        "eventkit: say its JSON, as in: eventkit publish OrderPlaced '{...}'; its fields: order_id, total, placed_by\n"
    )
