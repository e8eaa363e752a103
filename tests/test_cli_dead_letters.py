"""`eventkit dead-letters`, `status`, `tail`, `topics` and `doctor`, as processes beside running services."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

import eventkit
from eventkit.cli.table import lasting, printable, table
from eventkit.contract.checks import eventually
from eventkit.contract.letters import listed
from eventkit.testing.brokers import Broker
from tests.places import Parcel, Place, Weigh, alone_in, beside, running
from tests.programs import EVENTKIT, Program
from tests.wanted import wanted


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "real" in metafunc.fixturenames:
        metafunc.parametrize("real", [name for name in wanted(metafunc.config) if name != "memory"])


@pytest.fixture
def alone(tmp_path: Path) -> Place:
    return alone_in(tmp_path)


@pytest.fixture
def place(alone: Place, real: str, broker: Callable[[str], Broker]) -> Place:
    return beside(alone, real, broker(real))


def test_dead_letters_while_services_run(place: Place, real: str) -> None:
    async def story() -> None:
        async with running(place) as (bus, services):
            for number in range(4):
                await bus.publish(Parcel(name=f"parcel {number}"), id=f"p{number}")
                await listed(bus, "worker", number + 1)
            await bus.send(Weigh(number=1), id="w1")
            await listed(bus, "worker", 5)
            of = ("--group", "worker")

            found = await place.json("dead-letters", "list", *of)
            assert [one["id"] for one in found] == ["p0", "p1", "p2", "p3", "w1"]
            assert found[0] | {"first_failure": "", "last_failure": ""} == {
                "group": "worker",
                "id": "p0",
                "type": "Parcel",
                "key": "parcel 0",
                "reason": "exhausted",
                "attempts": 1,
                "redriven": 0,
                "first_failure": "",
                "last_failure": "",
                "origin": "topic:parcels",
                "error_type": "ValueError",
                "error_message": "no parcel 0\nbut \x1b[31mred",
            }
            code, output = await place.run("dead-letters", "list", "-g", "shop:service")
            assert code == 0
            lines = output.splitlines()
            assert lines[0].split() == ["id", "type", "key", "reason", "attempts", "retried", "failed", "error"]
            assert re.match(r"p0 +Parcel +parcel 0 +exhausted +1 +0 +.* ago +ValueError: no parcel 0\\nbut", lines[1])
            assert "5 dead letters of worker" in output
            assert "0 dead letters of worker.audit" in output
            assert "\x1b" not in output

            for everywhere in (("dead-letters", "list"), ("status",), ("dead-letters", "show", "p1")):
                code, output = await place.run(*everywhere)
                if real == "rabbit":
                    assert code == 1
                    assert "EVENTKIT_RABBIT__MANAGEMENT" in output
                else:
                    assert code == 0, output
                    assert "worker" in output
                    assert ("worker.audit" in output) == (everywhere[-1] != "p1")

            code, output = await place.run("dead-letters", "show", "p1", *of)
            assert code == 0
            for said in ("first at      topic:parcels", "Traceback", '"name": "parcel 1"', "retried       0 times"):
                assert said in output, output
            (shown,) = await place.json("dead-letters", "show", "p1", *of)
            assert json.loads(shown["body"]) == {"name": "parcel 1"}
            assert "raise ValueError" in shown["error_stack"]
            for hiding in (place.hiding("name"), place.hiding("masks:mask")):
                for command in (("show", "p1"), ("show", "p1", "--json"), ("list", "--type", "Parcel")):
                    code, output = await hiding.run("dead-letters", *command, *of)
                    assert code == 0, output
                    assert "***" in output, output
                    assert "parcel 1" not in output, output
            code, output = await place.run("dead-letters", "show", "none", *of)
            assert code == 1
            assert "no dead letter 'none'" in output

            services.works = True
            code, output = await place.run("dead-letters", "retry", "p0", "-g", "shop:service")
            assert (code, output) == (0, "worker: 1 dead letter retried\n")
            await eventually(lambda: services.handled["parcel 0"], "it is tried again")
            code, output = await place.run("dead-letters", "retry", "p1", "none", *of)
            assert code == 1
            assert "worker: 1 dead letter retried" in output
            assert "none is left: worker has no dead letter 'none'" in output

            code, output = await place.run("dead-letters", "discard", "--type", "Weigh", *of)
            assert code == 2
            assert "say --yes" in output
            assert await place.json("dead-letters", "discard", "--type", "Weigh", "--yes", *of) == [
                {"group": "worker", "discarded": 1, "failures": []}
            ]
            assert await place.json("dead-letters", "retry", "--since", "1h", *of) == [
                {"group": "worker", "retried": 2, "failures": []}
            ]
            await eventually(lambda: services.handled.total() == 4, "all are handled")
            assert await place.json("dead-letters", "list", *of) == []
            assert set(services.audited.values()) == {1}, "the other group got a retry"

    asyncio.run(story())


def test_topics_status_tail_and_doctor(place: Place, real: str) -> None:
    async def story() -> None:
        code, output = await place.run("topics", "validate", "shop:service")
        assert code == 1
        assert "missing" in output
        code, output = await place.run("status", "shop:service")
        assert code == 1
        assert "worker: not on this" in output
        code, output = await place.run("doctor", "shop:service")
        assert code == 1
        assert re.search(r"ok +connection +connected in", output)
        assert re.search(r"WRONG +worker +missing on.*\n +mend: eventkit topics create", output)

        code, output = await place.run("topics", "create", "shop:service")
        assert (code, output) == (0, f"all that worker, worker.audit need is there now, on {real}\n")
        assert (await place.run("topics", "validate", "shop:service"))[0] == 0
        code, output = await place.run("topics", "show", "shop:service")
        assert re.search(r"topic:parcels +\S+parcels +worker, worker\.audit\n", output), output
        assert re.search(r"topic:sent +\S+sent +worker\n", output), output
        assert re.search(r"inbox:worker +\S+inbox +worker\n", output), output

        bus = eventkit.connect(real, place.env["EVENTKIT_URL"], namespace=place.env["EVENTKIT_NAMESPACE"])
        async with bus:  # nobody runs: it waits
            await bus.publish_many([Parcel(name=f"parcel {n}") for n in range(3)])
            await bus.send(Weigh(number=1))
        found = {one["group"]: one for one in await place.json("status", "shop:service")}
        assert (found["worker"]["ready"], found["worker.audit"]["ready"]) == (4, 3)
        assert (found["worker"]["delayed"], found["worker"]["dead"]) == (0, 0)
        code, output = await place.run("tail", "parcels", "--from-start")
        if real == "rabbit":
            assert code == 1
            assert "keeps messages for groups only" in output
        else:
            assert code == 0
            assert output.count('{"name":"parcel') == 3, output
            (one,) = await place.json("tail", "parcels", "--from-start", "--limit", "1")
            assert (one["type"], one["key"]) == ("Parcel", "parcel 0")

        async with running(place) as (bus, services):
            await eventually(lambda: services.audited.total() == 3, "what waited is handled: nobody took it away")
            await listed(bus, "worker", 4)
            (found_again, *_) = await place.json("status", "shop:service")
            assert (found_again["ready"], found_again["dead"]) == (0, 4)
            (by_name,) = await place.json("status", "--group", "worker")
            assert (by_name["ready"], by_name["dead"], by_name["consumers"]) == (0, 4, 1)
            found = {one["check"]: one for one in await place.json("doctor", "shop:service", "--rights")}
            assert found["worker"]["said"] == "all that it needs is there; 4 dead letters"
            assert found["rights"]["ok"]
            with Program(
                *EVENTKIT, "status", "shop:service", "--watch", "--interval", "0.2", cwd=place.folder, env=place.env
            ) as program:
                await asyncio.to_thread(program.wait_for, r"(?s)ready.*ready.*ready")

    asyncio.run(story())


def test_an_unreachable_broker(alone: Place, real: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    scheme = {"rabbit": "amqp"}.get(real, real)
    at = ("--broker", real, "--url", f"{scheme}://someone:s3cret@127.0.0.1:{port}")
    code, output = alone.run_blocking("dead-letters", "list", "-g", "worker", *at)
    assert code == 1
    assert output.splitlines()[-1].startswith(f"eventkit: cannot connect to {real}"), output
    assert "s3cret" not in output
    assert "Traceback" not in output
    code, output = alone.run_blocking("doctor", *at)
    assert code == 1
    assert re.search(r"WRONG +connection .*\n +mend: is it running", output), output
    assert "s3cret" not in output


def test_tail_follows(place: Place, real: str) -> None:
    async def story() -> None:
        assert (await place.run("topics", "create", "shop:service"))[0] == 0
        bus = eventkit.connect(real, place.env["EVENTKIT_URL"], namespace=place.env["EVENTKIT_NAMESPACE"])
        every = Program(*EVENTKIT, "tail", "Parcel", "inbox:worker", "--limit", "4", cwd=place.folder, env=place.env)
        one = Program(
            *(*EVENTKIT, "tail", "parcels", "sent", "--key", "parcel 2", "--limit", "1", "--json"),
            cwd=place.folder,
            env=place.env,
        )
        hidden = Program(*EVENTKIT, "tail", "parcels", "--limit", "3", cwd=place.folder, env=place.hiding("name").env)
        with every, one, hidden:
            async with bus:
                await asyncio.to_thread(every.wait_for, f"following Parcel and inbox:worker on {real}; Ctrl-C ends it")
                await asyncio.to_thread(one.wait_for, "following parcels and sent")
                await asyncio.to_thread(hidden.wait_for, "following parcels")
                await bus.publish_many([Parcel(name=f"parcel {n}") for n in range(3)])
                await bus.send(Weigh(number=1))
                assert await asyncio.to_thread(hidden.wait) == 0, hidden.output
                await asyncio.to_thread(every.wait_for, r"(?s)parcel 2.*\{.*Weigh|Weigh.*parcel 2.*\{")
                assert await asyncio.to_thread(every.wait) == 0, every.output
                assert await asyncio.to_thread(one.wait) == 0, one.output
        assert [line.split("  ")[2] for line in every.output.splitlines() if "  Parcel  " in line] == [
            f"parcel {n}" for n in range(3)
        ]
        (shown,) = [json.loads(line) for line in one.output.splitlines() if line.startswith("{")]
        assert (shown["type"], shown["key"], json.loads(shown["body"])) == ("Parcel", "parcel 2", {"name": "parcel 2"})
        assert hidden.output.count('{"name": "***"}') == 3, hidden.output
        assert "parcel 1" not in hidden.output
        found = {group["group"]: group for group in await place.json("status", "shop:service")}
        assert (found["worker"]["ready"], found["worker.audit"]["ready"]) == (4, 3), "it took something from a group"

    asyncio.run(story())


def test_ctrl_c_ends_a_tail_in_order(place: Place) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        pytest.skip("whoever runs these tests has them, and all that they start, ignore Ctrl-C")
    assert place.run_blocking("topics", "create", "shop:service")[0] == 0
    with Program(*EVENTKIT, "tail", "parcels", cwd=place.folder, env=place.env) as program:
        program.wait_for("following parcels")
        program.tell(signal.SIGINT)
        assert program.wait(20) == 0, program.output
        assert "Traceback" not in program.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("dead-letters", "retry", "--all"), "say whose: --group shipping, or --group shop.shipping:service"),
        (("dead-letters", "list"), "the memory broker lives inside the process"),
        (("dead-letters", "list", "-g", "worker"), "the memory broker lives inside the process"),
        (("dead-letters", "list", "-g", "not a name"), "'not a name' is no name"),
        (("dead-letters", "list", "-g", "nowhere:service"), "there is no module 'nowhere' here"),
        (("dead-letters", "list", "-g", "worker", "--since", "soon"), "--since soon: say how long ago (90s, 30m, 2h"),
        (("dead-letters", "retry", "-g", "worker"), "say which: ids, --type, --reason, --since, or --all"),
        (("dead-letters", "discard", "--all", "-g", "worker"), "say --yes"),
        (("status",), "the memory broker lives inside the process"),
        (("status", "shop:service"), "the memory broker lives inside the process"),
        (("tail", "orders"), "the memory broker lives inside the process"),
        (("tail", "dead:orders"), "dead:orders cannot be followed: --from-start shows what it holds"),
        (("tail", "letter:orders", "--from-start"), "write orders, or inbox:shipping"),
        (("topics", "create", "shop:servic"), "did you mean shop:service?"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(alone: Place, arguments: tuple[str, ...], said: str) -> None:
    code, output = alone.run_blocking(*arguments)
    assert code == 2
    assert said in output
    assert output.count("\n") == 1, output


def test_doctor_says_what_memory_is(alone: Place) -> None:
    code, output = alone.run_blocking("doctor", "--rights")
    assert code == 0
    assert "memory: nothing leaves the process; set EVENTKIT_BROKER" in output
    wrong = Place(alone.folder, {"EVENTKIT_BROKR": "redis"})
    code, output = wrong.run_blocking("doctor")
    assert code == 1
    assert "did you mean EVENTKIT_BROKER?" in output
    assert "mend: correct the variable" in output


# texts


def test_a_table_shows_what_cannot_be_printed_and_cuts_the_last_column() -> None:
    lines = list(table(("id", "count", "text"), [("a\x1b[31m", "1", "x" * 50), ("b", "10", "y\nz")], 30, ["count"]))
    assert lines == [
        "id         count  text",
        r"a\x1b[31m      1  xxxxxxxxxxx…",
        r"b             10  y\nz",
    ]
    assert list(table(("id",), [], 80)) == []
    assert printable("a\u2028b\x85") == r"a\u2028b\x85"


def test_times_in_words() -> None:
    assert [lasting(timedelta(seconds=s)) for s in (0, 59, 61, 3_600, 7_500, 90_000)] == [
        "0 s", "59 s", "1 min 1 s", "1 h", "2 h 5 min", "1 d 1 h",
    ]  # fmt: skip
    assert lasting(None) == ""
