"""URLs that name several servers, on each broker that has them; no secret in what is said of a wrong one."""

from __future__ import annotations

import os

import pytest
from pydantic import SecretStr

from eventkit.adapter import Connection
from eventkit.errors import SettingsError
from eventkit.security import Credentials
from eventkit_kafka.settings import Url
from eventkit_nats.settings import NatsSettings
from eventkit_nats.settings import Target as NatsTarget
from eventkit_rabbit.settings import RabbitSettings
from eventkit_rabbit.target import target as rabbit
from eventkit_redis import RedisSettings
from eventkit_redis.sentinel import Sentinels
from eventkit_redis.server import broker

SECRET = "hunter2-and-more"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("EVENTKIT_"):
            monkeypatch.delenv(name)


def test_kafka() -> None:
    found = Url.parse("kafka://user:pass@one:9093,two")
    assert (found.servers, found.username, found.password) == (("one:9093", "two:9092"), "user", "pass")


def test_nats() -> None:
    found = NatsTarget(SecretStr("nats://user:pass@one:4223,two"), NatsSettings(), "test")
    assert found.servers == ["nats://one:4223", "nats://two:4222"]
    assert found.options()["user"] == "user"


def test_rabbit() -> None:
    found = rabbit("amqp://user:p%40ss@one:5673,two,[::1]:5674/shop?heartbeat=7", RabbitSettings(), "test")
    assert str(found) == "one:5673, two:5672, ::1:5674"
    nodes = {node.host: node for node in found.nodes()}
    assert set(nodes) == {"one", "two", "::1"}
    for node in nodes.values():
        assert (node.url.user, node.url.password, node.url.path) == ("user", "p@ss", "/shop")
        assert node.url.query["heartbeat"] == "7"
        assert not node.others


def test_rabbit_with_credentials_and_tls_of_the_settings() -> None:
    settings = RabbitSettings(credentials=Credentials(username="me", password=SecretStr(SECRET)))
    found = rabbit("amqps://one,two", settings, "test")
    assert [(node.url.user, node.url.password, node.port) for node in found.nodes()] == [("me", SECRET, 5671)] * 2
    assert found.context is not None
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    "url", [f"amqp://user:{SECRET}@one,two:port/", f"amqp://user:{SECRET}@one,", f"http://user:{SECRET}@one,two"]
)
def test_a_wrong_address_of_rabbit(url: str) -> None:
    with pytest.raises(SettingsError, match="EVENTKIT_URL") as raised:
        rabbit(url, RabbitSettings(), "test")
    assert SECRET not in str(raised.value)
    assert "commas between" in str(raised.value)


def test_the_clients_of_a_cluster_spread_over_it() -> None:
    found = rabbit("amqp://one,two,three", RabbitSettings(), "test")
    assert {found.nodes()[0].host for _ in range(200)} == {"one", "two", "three"}


def redis(url: str, **settings: Credentials) -> Sentinels | None:
    connection = Connection(url=SecretStr(url), namespace="", client="test", settings=None)
    return broker(connection, RedisSettings(**settings))[1]  # type: ignore[arg-type]


def test_redis_by_its_sentinels() -> None:
    found = redis("redis+sentinel://user:p%40ss@one:26380,two,[::1]:26381/main/3")
    assert found is not None
    assert found.hosts == (("one", 26380), ("two", 26379), ("::1", 26381))
    assert (found.name, found.url) == ("main", "redis://user:p%40ss@localhost/3")
    assert found.login == {}, "the user of the Redis is none of the Sentinels'"


def test_the_sentinels_have_credentials_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_REDIS__SENTINEL__PASSWORD", SECRET)
    found = redis("rediss+sentinel://one/main")
    assert found is not None
    assert found.login == {"password": SECRET}
    assert found.url == "rediss://localhost/0"
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"redis+sentinel://user:{SECRET}@one,two", "the name that they have for the primary"),
        (f"redis+sentinel://user:{SECRET}@one,two/", "the name that they have for the primary"),
        (f"redis+sentinel://user:{SECRET}@one,/main", "EVENTKIT_URL is no URL of a Redis"),
        (f"redis+sentinel://user:{SECRET}@one:port/main", "EVENTKIT_URL is no URL of a Redis"),
        (f"redis+sentinel://user:{SECRET}@one/main/second", "EVENTKIT_URL is no URL of a Redis"),
    ],
)
def test_a_wrong_address_of_sentinels(url: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as raised:
        redis(url)
    assert SECRET not in str(raised.value)


def test_one_redis_has_no_sentinels() -> None:
    assert redis("redis://one:6379/3") is None
