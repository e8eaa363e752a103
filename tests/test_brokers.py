"""How the tests come by real brokers: each way, what happens when none works, and that nothing is left behind.

The NATS server comes with the test dependencies, so that what has to do with processes is tested with it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventkit.testing.brokers import NAMES, Broker, BrokerUnavailable, install, kafka, make_available, probe, provide
from eventkit.testing.brokers import __main__ as command_line
from eventkit.testing.brokers.errors import NotThisWay
from eventkit.testing.brokers.nats import Nats
from eventkit.testing.brokers.process import free_port, run

ROOT = Path(__file__).parent.parent

LOCAL: dict[
    str, dict[str, str | None]
] = {  # a setting of its own makes a broker local, whatever this machine's environment offers
    "redis": {"maxmemory": "200mb"},
    "nats": {"max_payload": "1MB"},
    "rabbit": {"heartbeat": "30"},
    "kafka": {"group.initial.rebalance.delay.ms": None},
}


@pytest.fixture(autouse=True)
def _without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(f"EVENTKIT_TEST_{name.upper()}_URL", raising=False)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def nats(said: list[str]) -> Iterator[Broker]:
    with provide("nats", settings=LOCAL["nats"], say=said.append) as broker:
        yield broker


def port_of(url: str) -> int:
    return int(url.rstrip("/").rpartition(":")[2])


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def until(holds: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


# ---- local servers


@pytest.mark.parametrize("name", NAMES)
def test_a_local_server_survives_a_kill_and_a_restart_and_leaves_nothing(name: str, said: list[str]) -> None:
    try:
        broker = provide(name, settings=LOCAL[name], say=said.append)
    except BrokerUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    folder = broker._running._folder  # type: ignore[union-attr]
    port = port_of(broker.url)
    try:
        assert broker.ours
        assert broker.how in ("installed", "just installed")
        assert broker.version[0].isdigit()
        assert any(broker.url in line for line in said)
        broker.kill()
        assert not answers(port)
        broker.start()
        assert answers(port)
        broker.restart()
        assert answers(port)
    finally:
        broker.stop()
        broker.stop()
    assert not answers(port)
    assert not folder.exists()


def test_what_the_server_has_stored_is_there_after_a_kill(nats: Broker) -> None:
    def call(subject: str, body: str) -> bytes:
        with socket.create_connection(("127.0.0.1", port_of(nats.url)), timeout=5) as line:
            line.sendall(b'CONNECT {"verbose":false}\r\nSUB answer 1\r\n')
            line.sendall(f"PUB {subject} answer {len(body)}\r\n{body}\r\n".encode())
            got = b""
            while b"MSG answer" not in got or not got.endswith(b"\r\n"):
                got += line.recv(65536)
            return got

    call("$JS.API.STREAM.CREATE.kept", '{"name":"kept","subjects":["kept.>"],"storage":"file"}')
    assert b'"seq":1' in call("kept.one", "hello")
    nats.kill()
    nats.start()
    assert b'"messages":1' in call("$JS.API.STREAM.INFO.kept", "")


def test_the_server_listens_on_loopback_only(nats: Broker) -> None:
    # 127.0.0.1 as text in the server's own table of sockets: 0100007F; 0.0.0.0 would be 00000000.
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("only Linux has this table")
    port = f":{port_of(nats.url):04X}"
    listening = [line.split() for line in table.read_text().splitlines()[1:]]
    assert [fields[1] for fields in listening if fields[1].endswith(port) and fields[3] == "0A"] == [f"0100007F{port}"]


OWNER = """
import os, signal, sys, time
from eventkit.testing.brokers import provide
broker = provide("nats", settings={"max_payload": "1MB"}, say=lambda line: None)
print(broker.url, broker._running._folder, flush=True)
END
"""


@pytest.mark.parametrize(
    "end",
    [
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", id="kill -9"),
        pytest.param("os.kill(os.getpid(), signal.SIGTERM)", id="SIGTERM"),
        pytest.param("raise SystemExit(3)", id="exit"),
        pytest.param("raise ValueError", id="exception"),
        pytest.param("pass", id="end"),
        pytest.param(  # the child holds the pipe to the keeper open
            "os.fork() and os.kill(os.getpid(), signal.SIGKILL); sys.stdout.close(); os.close(1); time.sleep(30)",
            id="kill -9 while a forked child lives on",
        ),
    ],
)
def test_the_server_ends_with_its_owner(end: str) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER.replace("END", end)], stdout=subprocess.PIPE, cwd=ROOT)
    with owner:
        assert owner.stdout is not None
        url, _, folder = owner.stdout.readline().decode().strip().partition(" ")
        owner.wait(timeout=20)
    assert until(lambda: not answers(port_of(url)))
    assert until(lambda: not Path(folder).exists())


def test_a_forked_child_that_ends_does_not_stop_the_server(nats: Broker) -> None:
    code = OWNER.replace("END", "if os.fork() == 0: sys.exit()\nos.wait(); broker.restart(); print('up', flush=True)")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=ROOT, check=True
    )
    assert done.stdout.endswith("up\n")


def test_a_server_that_does_not_start_shows_its_own_words(said: list[str]) -> None:
    with pytest.raises(BrokerUnavailable, match="Parse error"):
        provide("nats", settings={"jetstream": "{"}, say=said.append)


# ---- the order of the ways, and what is said when none works


def test_an_address_in_the_environment_comes_first(nats: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_TEST_NATS_URL", nats.url)
    other = provide("nats", say=lambda line: None)
    assert (other.url, other.how, other.ours) == (nats.url, "environment", False)
    assert other.version == nats.version
    other.stop()
    assert answers(port_of(nats.url))
    with pytest.raises(RuntimeError, match="EVENTKIT_TEST_NATS_URL"):
        other.kill()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nats://127.0.0.1:1", "no answer at 127.0.0.1:1"),
        ("localhost", "must name a host and a port"),
        ("nats://localhost:port", "EVENTKIT_TEST_NATS_URL"),
    ],
)
def test_a_wrong_address_is_an_error_and_no_other_way_is_tried(
    url: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTKIT_TEST_NATS_URL", url)
    monkeypatch.setattr("eventkit.testing.brokers.ways.PATIENCE", 0.3)
    with pytest.raises(BrokerUnavailable, match=reason) as caught:
        provide("nats", say=lambda line: None)
    assert [way for way, _ in caught.value.tried] == ["environment"]


def test_an_unknown_broker_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'kafak'.*redis, nats, rabbit, kafka"):
        provide("kafak")


def test_when_no_way_works_each_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    def missing(self: Nats) -> None:
        raise NotThisWay("not found")

    def refused(self: Nats, say: object) -> None:
        raise NotThisWay("the index cannot be reached")

    monkeypatch.setattr(Nats, "find", missing)
    monkeypatch.setattr(Nats, "install", refused)
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/socket")
    with pytest.raises(BrokerUnavailable) as caught:
        provide("nats", say=said.append)
    assert [way for way, _ in caught.value.tried] == ["environment", "container", "installed", "install"]
    text = str(caught.value)
    for part in ("EVENTKIT_TEST_NATS_URL is not set", "Docker", "not found", "the index cannot be reached"):
        assert part in text
    assert said == []
    with pytest.raises(BrokerUnavailable):
        make_available("nats", say=said.append)


def test_an_engine_without_the_image_is_said_and_the_next_way_taken(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    reason = "the Docker engine answers, but the image nats:2.11.8-alpine cannot be pulled (no such host)"

    def fail(*arguments: object) -> None:
        raise NotThisWay(reason, aloud=True)

    monkeypatch.setattr("eventkit.testing.brokers.ways.Container", fail)
    with provide("nats", say=said.append) as broker:
        assert broker.how == "installed"
    assert said[0] == f"nats: {reason}; trying the next way"


# ---- containers


@pytest.mark.parametrize("name", ["redis", "nats"])
def test_a_broker_in_a_container(name: str, said: list[str]) -> None:
    """Runs where `EVENTKIT_TEST_CONTAINERS=1` says that an engine and the images are there (nox -s containers)."""
    if not os.environ.get("EVENTKIT_TEST_CONTAINERS"):
        pytest.skip("set EVENTKIT_TEST_CONTAINERS=1 where a Docker engine runs")
    with provide(name, say=said.append) as broker:
        assert broker.how == "container", said
        port = port_of(broker.url)
        broker.kill()
        assert not answers(port)
        broker.start()
        broker.restart()
        assert answers(port)
    assert not answers(port)


def test_a_container_ends_with_its_owner() -> None:
    if not os.environ.get("EVENTKIT_TEST_CONTAINERS"):
        pytest.skip("set EVENTKIT_TEST_CONTAINERS=1 where a Docker engine runs")
    code = OWNER.replace(', settings={"max_payload": "1MB"}', "").replace("broker._running._folder", "broker.how")
    code = code.replace("END", "os.kill(os.getpid(), signal.SIGKILL)")
    owner = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=60, cwd=ROOT, check=False)
    url, _, how = owner.stdout.decode().strip().partition(" ")
    assert how == "container"
    assert until(lambda: not answers(port_of(url)), seconds=20)


# ---- probes


@pytest.fixture
def impostor() -> Iterator[list[bytes]]:
    """A server that answers each connection with the bytes put into the list; the port is its last element."""
    answer: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        answer.append(str(listening.getsockname()[1]).encode())

        def serve() -> None:
            while True:
                try:
                    line, _ = listening.accept()
                except OSError:
                    return
                with line:
                    line.settimeout(0.2)
                    try:
                        line.sendall(b"".join(answer[1:]))
                        while line.recv(4096):
                            pass
                    except OSError:
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield answer
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=5)


@pytest.mark.parametrize("ask", [probe.redis, probe.nats, probe.rabbit, probe.kafka])
@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x00\x00\x06\x00\x00\x00\x09\x00\x00"]
)
def test_another_server_at_the_address_is_not_taken_for_the_broker(
    ask: probe.Probe, answer: bytes, impostor: list[bytes]
) -> None:
    impostor.append(answer)
    with pytest.raises((probe.NotReady, OSError)):
        ask("127.0.0.1", int(impostor[0]))


def test_redis_that_asks_for_a_password_is_ready(impostor: list[bytes]) -> None:
    impostor.append(b"-NOAUTH Authentication required.\r\n")
    assert "password" in probe.redis("127.0.0.1", int(impostor[0]))


def test_nats_without_jetstream_is_refused_with_the_mend(impostor: list[bytes]) -> None:
    impostor.append(b'INFO {"version":"2.10.0"}\r\n')
    with pytest.raises(probe.NotReady, match="-js"):
        probe.nats("127.0.0.1", int(impostor[0]))


def test_ports_are_outside_the_range_that_the_system_gives_to_clients() -> None:
    ports = {free_port() for _ in range(50)}
    assert len(ports) == 50
    assert all(15_000 <= port < 32_000 for port in ports)


# ---- commands and installing


def test_a_command_that_hangs_is_given_up_with_what_it_said(said: list[str]) -> None:
    with pytest.raises(NotThisWay, match=r"(?s)waiting: not done after 1 s.*half way"):
        run(["sh", "-c", "echo half way; sleep 60"], what="waiting", seconds=1, say=said.append)


def test_a_command_that_fails_shows_the_end_of_what_it_said() -> None:
    with pytest.raises(NotThisWay, match=r"(?s)ended with 7.*no such package"):
        run(["sh", "-c", "echo no such package >&2; exit 7"], what="installing", seconds=10, say=lambda line: None)
    with pytest.raises(NotThisWay, match="no-such-program"):
        run(["no-such-program"], what="installing", seconds=10, say=lambda line: None)


def test_without_root_a_person_is_told_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda name, path=None: "/usr/bin/apt-get" if name == "apt-get" else None)
    with pytest.raises(NotThisWay, match="sudo apt-get install redis-server"):
        install.system_packages("redis", ["redis-server"], say=lambda line: None, otherwise="install Redis")
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    with pytest.raises(NotThisWay, match="no apt-get here: install Redis"):
        install.system_packages("redis", ["redis-server"], say=lambda line: None, otherwise="install Redis")


def test_a_fetch_of_kafka_cut_short_is_not_taken_for_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTKIT_TEST_CACHE", str(tmp_path / "cache"))
    maven = tmp_path / "mvn"
    folder = "for word; do case $word in -DoutputDirectory=*) folder=${word#*=};; esac; done"
    jars = f'{folder}; mkdir "$folder"; touch "$folder/kafka_2.13-{kafka.VERSION}.jar"'
    maven.write_text(f"#!/bin/sh\n{jars}\nexit 1\n")
    maven.chmod(0o755)
    with pytest.raises(NotThisWay, match="mvn ended with 1"):
        kafka._fetch(str(maven), lambda line: None)
    with pytest.raises(NotThisWay, match="is not in the cache folder"):
        kafka.Kafka().find()
    assert list((tmp_path / "cache").iterdir()) == []
    maven.write_text(f"#!/bin/sh\n{jars}\n")
    kafka._fetch(str(maven), lambda line: None)
    assert [path.name for path in (tmp_path / "cache").rglob("*.jar")] == [f"kafka_2.13-{kafka.VERSION}.jar"]


# ---- the command line


def brokers(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "eventkit.testing.brokers", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "DOCKER_HOST": "unix:///no/such/socket", **(environment or {})},
    )


def test_a_command_runs_beside_a_broker_and_its_exit_code_is_returned() -> None:
    with brokers("nats", "--", "sh", "-c", "env; exit 7") as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 7, errors
    variables = dict(line.split("=", 1) for line in output.splitlines() if line.startswith("EVENTKIT"))
    assert variables["EVENTKIT_BROKER"] == "nats"
    assert variables["EVENTKIT_URL"] == variables["EVENTKIT_TEST_NATS_URL"]
    assert not answers(port_of(variables["EVENTKIT_URL"]))
    assert "nats: 2." in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_to_the_command(number: signal.Signals) -> None:
    script = "trap 'exit 9' TERM INT; echo $EVENTKIT_URL; while :; do sleep 0.1; done"
    with brokers("nats", "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        process.send_signal(number)
        assert process.wait(timeout=20) == 9
    assert not answers(port_of(url))


def test_without_a_command_the_brokers_stay_until_a_signal(tmp_path: Path) -> None:
    file = tmp_path / "urls"
    with brokers("--write", str(file), "nats") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("EVENTKIT_TEST_NATS_URL=nats://127.0.0.1:")
        assert file.read_text() == line
        assert answers(port_of(line.strip()))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    assert not file.exists()
    assert not answers(port_of(line.strip()))


def test_what_cannot_be_provided_or_run_ends_with_an_error() -> None:
    with brokers("nats", "--", "true", environment={"EVENTKIT_TEST_NATS_URL": "nats://nowhere"}) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "EVENTKIT_TEST_NATS_URL must name a host and a port" in errors
    with brokers("nats", "--", "no-such-program") as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 127
    assert "no-such-program" in errors


def test_install_only_starts_nothing(said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with brokers("--install", "nats") as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")
    assert "nats: installed" in errors
    with pytest.raises(SystemExit):
        command_line.main(["kafak"])
    assert "kafak" in capsys.readouterr().err
