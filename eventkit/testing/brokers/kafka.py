"""Apache Kafka: its jars from Maven, kept in a cache, run on one KRaft node."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from eventkit.testing.brokers import install, probe
from eventkit.testing.brokers.errors import NotThisWay
from eventkit.testing.brokers.process import Program, Say, free_port, run
from eventkit.testing.brokers.recipe import Found, Image, Settings, merged

VERSION = "4.1.1"

_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>eventkit.testing</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{version}</version></dependency>
    <!-- Kafka's log, on standard error: without it a broker that cannot start ends without a word. -->
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""

# What one node needs, and what makes tests quick: a group is formed at once instead of after 3 s, the internal topics
# have few partitions instead of 50 (each is files to open at every start), and a broker that comes back after a kill
# waits 3 s instead of 9 until its own former session is over.
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,"
    "SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
    "auto.create.topics.enable": "false",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}


# Two of the caller's settings are not what stands in the properties. Listeners are added to ours by their names, since
# only here it is known where ours are; and users that log in with SCRAM are made when the data folder is.
_LISTENERS = ("listeners", "advertised.listeners")
_SCRAM = "scram.user."


class Kafka:
    """Takes `scram.user.<name>` (its password) among the settings."""

    name = "kafka"

    def ask(self, host: str, port: int) -> str:
        return probe.kafka(host, port)

    def url(self, host: str, port: int) -> str:
        return f"kafka://{host}:{port}"

    def image(self, host: str, port: int) -> Image:
        settings = {
            **_SETTINGS,
            "listeners": "PLAINTEXT://:9092,CONTROLLER://127.0.0.1:9093",
            "advertised.listeners": f"PLAINTEXT://{host}:{port}",
            "controller.quorum.voters": "1@127.0.0.1:9093",
        }
        environment = {"KAFKA_" + key.upper().replace(".", "_"): value for key, value in settings.items()}
        return Image(f"apache/kafka:{VERSION}", 9092, environment=environment)

    def find(self) -> Found:
        libs = _cache() / "libs"
        version = _release(libs)
        if version is None:
            raise NotThisWay(
                f"Kafka {VERSION} is not in the cache folder (EVENTKIT_TEST_CACHE, else ~/.cache/eventkit)"
            )
        if install.java() is None:
            raise NotThisWay("Kafka's jars are there, but Java 17 or newer is not on the PATH")
        return Found(libs, version)

    def install(self, say: Say) -> None:
        fetched = _release(_cache() / "libs") is not None
        missing = [] if install.java() else ["default-jre-headless"]
        missing += [] if fetched or install.maven() else ["maven"]
        if missing:
            install.system_packages("kafka", missing, say=say, otherwise="install Java 17 or newer and Apache Maven")
        if install.java() is None:
            raise NotThisWay(
                "the system's package default-jre-headless is older than Java 17: install Java 17 or newer"
            )
        if not fetched:
            _fetch(install.maven() or "mvn", say)

    def programs(self, found: Found, folder: Path, settings: Settings, say: Say) -> Sequence[Program]:
        port, controller = free_port(), free_port()
        data = folder / "data"
        listens = {"PLAINTEXT": f"127.0.0.1:{port}", "CONTROLLER": f"127.0.0.1:{controller}"}
        said = {name: value for name, value in settings.items() if not name.startswith((*_LISTENERS, _SCRAM))}
        lines = merged(
            {
                **_SETTINGS,
                "listeners": _listeners(listens, settings.get("listeners")),
                "advertised.listeners": _listeners(
                    {"PLAINTEXT": listens["PLAINTEXT"]}, settings.get("advertised.listeners")
                ),
                "controller.quorum.voters": f"1@127.0.0.1:{controller}",
                "log.dirs": str(data),
            },
            said,
        )
        properties = folder / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        java = [
            install.java() or "java",
            "-Xms256m",
            "-Xmx512m",
            "-XX:+UseG1GC",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-cp",
            str(found.path / "*"),
        ]
        cluster = "ZXZlbnRraXQtdGVzdGluZw"  # sixteen bytes in base64, as Kafka wants it
        users = [
            word
            for name, password in settings.items()
            if name.startswith(_SCRAM)
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for word in ("--add-scram", f"{mechanism}=[name={name.removeprefix(_SCRAM)},password={password}]")
        ]
        run(
            [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties), *users],
            what="kafka: formatting its data folder",
            seconds=60,
            say=say,
        )
        return [Program("kafka", [*java, "kafka.Kafka", str(properties)], port, self.ask, seconds=90)]


def _listeners(ours: dict[str, str], theirs: str | None) -> str:
    found = dict(listener.split("://", 1) for listener in (theirs or "").split(",") if listener)
    return ",".join(f"{name}://{address}" for name, address in {**ours, **found}.items())


def _cache() -> Path:
    home = os.environ.get("EVENTKIT_TEST_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "eventkit"
    return Path(home).expanduser() / f"kafka-{VERSION}"


def _release(libs: Path) -> str | None:
    """The version in the name of Kafka's own jar."""
    for jar in libs.glob("kafka_2.13-*.jar"):
        if found := re.fullmatch(r"kafka_2\.13-([0-9.]+)\.jar", jar.name):
            return found.group(1)
    return None


def _fetch(maven: str, say: Say) -> None:
    cache = _cache()
    cache.parent.mkdir(parents=True, exist_ok=True)
    say(f"kafka: fetching Apache Kafka {VERSION} with Maven (about 55 MB) ...")
    # Into a folder beside the cache and renamed when whole: a fetch cut short is never taken for a complete one.
    with tempfile.TemporaryDirectory(dir=cache.parent, prefix="kafka-fetch-") as name:
        fresh = Path(name) / "kafka"
        fresh.mkdir()
        pom = Path(name) / "pom.xml"
        pom.write_text(_POM.format(version=VERSION))
        run(
            [
                maven, "--batch-mode", "--quiet", "-f", str(pom), "dependency:copy-dependencies",
                f"-DoutputDirectory={fresh / 'libs'}", "-DincludeScope=runtime",
            ],
            what="kafka: fetching with Maven",
            seconds=600,
            say=say,
        )  # fmt: skip
        if _release(fresh / "libs") is None:
            raise NotThisWay("Maven ended well but brought no kafka_2.13 jar")
        if _release(cache / "libs") is None:  # else another process was quicker
            shutil.rmtree(cache, ignore_errors=True)
            fresh.rename(cache)
