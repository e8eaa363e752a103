"""compose.yaml: what it says, and that it says the same as the tests' containers."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from eventkit.testing.brokers import NAMES
from eventkit.testing.brokers.compose import BROKERS, PROFILE, compose, url
from tests.programs import ROOT

FILE = ROOT / "compose.yaml"


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return read


def test_the_file_is_what_would_be_written_now() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert text == compose(list(BROKERS)), "python -m eventkit.testing.brokers.compose > compose.yaml"


def test_all_brokers_are_there_with_the_images_of_the_tests(written: dict[str, Any]) -> None:
    assert set(BROKERS) == set(NAMES)
    for name, composed in BROKERS.items():
        service = written["services"][name]
        image = composed.recipe.image("127.0.0.1", 1)
        assert service["image"] in (image.name, f"{image.name}-management")
        assert f"127.0.0.1:{image.port}:{image.port}" in service["ports"]
        assert url(name).split("@")[-1].split("//")[-1].rstrip("/") == f"localhost:{image.port}"


def test_each_has_a_page(written: dict[str, Any]) -> None:
    pages = {name.partition("-")[0] for name, service in written["services"].items() if "profiles" in service}
    assert pages == {"redis", "nats", "kafka"}
    assert "127.0.0.1:15672:15672" in written["services"]["rabbit"]["ports"], "RabbitMQ's own"


def test_each_service_is_pinned_watched_and_for_this_machine_alone(written: dict[str, Any]) -> None:
    for name, service in written["services"].items():
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", service["image"]), service["image"]
        kind, command = service["healthcheck"]["test"]
        assert (kind, bool(command)) == ("CMD-SHELL", True)
        assert service["healthcheck"]["retries"] > 0
        assert service["ports"]
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:"), f"{name}: {port}"
        assert service.get("profiles", [PROFILE]) == [PROFILE]


def test_no_two_want_the_same_port_and_every_volume_is_declared(written: dict[str, Any]) -> None:
    outside = [port.split(":")[1] for service in written["services"].values() for port in service["ports"]]
    assert len(outside) == len(set(outside))
    volumes = {mount.split(":")[0] for service in written["services"].values() for mount in service.get("volumes", [])}
    assert volumes == set(written["volumes"])


def test_what_a_dashboard_waits_for_is_there(written: dict[str, Any]) -> None:
    for service in written["services"].values():
        for other, how in service.get("depends_on", {}).items():
            assert "healthcheck" in written["services"][other]
            assert how == {"condition": "service_healthy"}


def test_a_broker_keeps_its_data_where_its_volume_is(written: dict[str, Any]) -> None:
    for name, composed in BROKERS.items():
        assert written["services"][name]["volumes"] == [f"{name}:{composed.data}"]
    nats = written["services"]["nats"]["command"]
    assert [nats[at + 1] for at, word in enumerate(nats) if word == "-sd"] == ["/data"]
    assert written["services"]["kafka"]["environment"]["KAFKA_LOG_DIRS"] == BROKERS["kafka"].data


@pytest.mark.parametrize("name", NAMES)
def test_one_broker_alone(name: str) -> None:
    one = yaml.safe_load(compose([name]))
    assert [service.partition("-")[0] for service in one["services"]] == [name] * len(one["services"])


def test_an_unknown_broker() -> None:
    with pytest.raises(ValueError, match="unknown broker 'pulsar'; one of: redis, nats, rabbit, kafka"):
        compose(["pulsar"])
