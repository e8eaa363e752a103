"""Settings: from the environment, mistypings found, secrets never shown."""

from __future__ import annotations

import logging
import os

import pytest
from pydantic import BaseModel
from pydantic_settings import BaseSettings, SettingsConfigDict

import eventkit
from eventkit import AdapterNotFound, Provision, SettingsError, discovery
from eventkit.errors import EventkitError
from eventkit.security import Credentials, Tls
from eventkit.settings import read_adapter_settings, read_settings

ADAPTERS = ("kafka", "memory", "nats", "rabbit", "redis")
SECRET = "hunter2-and-more"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("EVENTKIT_"):
            monkeypatch.delenv(name)


class Pool(BaseModel):
    size: int = 5


class OwnSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="EVENTKIT_REDIS__", env_nested_delimiter="__")

    credentials: Credentials = Credentials()
    tls: Tls = Tls()
    pool: Pool = Pool()


def test_defaults() -> None:
    found = read_settings(ADAPTERS)
    assert (found.broker, found.url, found.service, found.namespace) == ("memory", None, "eventkit", "")
    assert found.provision is Provision.CREATE


def test_all_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_BROKER", "redis")
    monkeypatch.setenv("EVENTKIT_URL", f"redis://user:{SECRET}@host:6379")
    monkeypatch.setenv("EVENTKIT_SERVICE", "shop")
    monkeypatch.setenv("EVENTKIT_NAMESPACE", "acme.eu")
    monkeypatch.setenv("EVENTKIT_PROVISION", "validate")
    found = read_settings(ADAPTERS)
    assert (found.broker, found.service, found.namespace, found.provision) == ("redis", "shop", "acme.eu", "validate")
    assert found.url is not None
    assert found.url.get_secret_value().endswith("@host:6379")
    assert SECRET not in f"{found!r} {found} {found.url} {found.model_dump()} {found.model_dump_json()}"


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_BROKER", "")
    monkeypatch.setenv("EVENTKIT_URL", "")
    assert (read_settings(ADAPTERS).broker, read_settings(ADAPTERS).url) == ("memory", None)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("EVENTKIT_BROKR", "EVENTKIT_BROKER"),
        ("EVENTKIT_BROKERS", "EVENTKIT_BROKER"),
        ("EVENTKIT_ULR", "EVENTKIT_URL"),
        ("EVENTKIT_NAME_SPACE", "EVENTKIT_NAMESPACE"),
        ("eventkit_servce", "EVENTKIT_SERVICE"),
        ("EVENTKIT_KAFAK__ACKS", "EVENTKIT_KAFKA__ACKS"),
        ("EVENTKIT_REDS__POOL__SIZE", "EVENTKIT_REDIS__POOL__SIZE"),
        ("EVENTKIT_REDIS_POOL", "EVENTKIT_REDIS__"),
    ],
)
def test_a_mistyped_variable_is_an_error_that_suggests_the_right_one(
    monkeypatch: pytest.MonkeyPatch, name: str, right: str
) -> None:
    monkeypatch.setenv(name, SECRET)
    with pytest.raises(SettingsError, match=rf"^{name} is no setting of eventkit; did you mean {right}.*\?") as raised:
        eventkit.connect()
    assert SECRET not in str(raised.value)


def test_a_variable_like_none_lists_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_QQQQQQ", "x")
    with pytest.raises(SettingsError, match=r"EVENTKIT_QQQQQQ is no setting of eventkit \(settings: EVENTKIT_BROKER"):
        read_settings(ADAPTERS)


def test_variables_of_others_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_TEST_REDIS_URL", "redis://")
    monkeypatch.setenv("EVENTKITX", "1")
    monkeypatch.setenv("MY_EVENTKIT_BROKER", "1")
    read_settings(ADAPTERS)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "EVENTKIT_PROVISION",
            "maybe",
            "EVENTKIT_PROVISION: .*write create, validate or assume; without it, create is taken",
        ),
        ("EVENTKIT_NAMESPACE", "my shop", "EVENTKIT_NAMESPACE: .*'my shop' is no name: use letters"),
        ("EVENTKIT_SERVICE", "a/b", "EVENTKIT_SERVICE: .*'a/b' is no name"),
    ],
)
def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=said):
        eventkit.connect()


def test_arguments_take_the_place_of_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_BROKER", "no-such-broker")
    assert eventkit.connect("memory").broker == "memory"
    with pytest.raises(SettingsError, match="provision='often': it is create, validate or assume"):
        eventkit.connect("memory", provision="often")


@pytest.mark.parametrize(("name", "right"), [("reddis", "redis"), ("kafak", "kafka"), ("memry", "memory")])
def test_an_unknown_broker_suggests_one(name: str, right: str) -> None:
    with pytest.raises(AdapterNotFound, match=rf"there is no broker '{name}'; did you mean '{right}'\? \(installed: "):
        eventkit.connect(name)
    with pytest.raises(AdapterNotFound, match=r"there is no broker 'zzz' \(installed: kafka, memory, nats"):
        eventkit.connect("zzz")


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "redis"

        def load(self) -> object:
            raise ImportError("No module named 'redis'")

    monkeypatch.setattr(discovery, "_points", lambda: [Point()])
    with pytest.raises(
        AdapterNotFound, match=r"'redis' is not installed .*: pip install 'faststream-eventkit\[redis\]'"
    ):
        discovery.load("redis")


def test_nobody_is_told_only_where_memory_was_not_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "eventkit"):
        eventkit.connect("memory")
        monkeypatch.setenv("EVENTKIT_BROKER", "memory")
        eventkit.connect()
        assert caplog.messages == []
        monkeypatch.delenv("EVENTKIT_BROKER")
        eventkit.connect()
    assert caplog.messages == ["EVENTKIT_BROKER is not set: messages stay in this process's memory and end with it"]


def test_an_adapters_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_REDIS__CREDENTIALS__USERNAME", "me")
    monkeypatch.setenv("EVENTKIT_REDIS__CREDENTIALS__PASSWORD", SECRET)
    monkeypatch.setenv("EVENTKIT_REDIS__TLS__CHECK_HOSTNAME", "false")
    found = read_adapter_settings(OwnSettings)
    assert isinstance(found, OwnSettings)
    assert (found.credentials.username, found.credentials.secret()) == ("me", SECRET)
    assert not found.tls.check_hostname
    assert SECRET not in f"{found!r} {found} {found.model_dump_json()}"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EVENTKIT_REDIS__POOL__SIZE", SECRET, "EVENTKIT_REDIS__POOL__SIZE: this is no whole number; write"),
        (
            "EVENTKIT_REDIS__TLS",
            SECRET,
            "EVENTKIT_REDIS__TLS: this is no setting but several; .*: EVENTKIT_REDIS__TLS__ENABLED, ",
        ),
        (
            "EVENTKIT_REDIS__PASSWORD",
            SECRET,
            r"EVENTKIT_REDIS__PASSWORD is no setting of eventkit .*REDIS__CREDENTIALS, ",
        ),
        (
            "EVENTKIT_REDIS__POL__SIZE",
            SECRET,
            r"EVENTKIT_REDIS__POL__SIZE is no.* did you mean EVENTKIT_REDIS__POOL__SIZE\?",
        ),
        (
            "EVENTKIT_REDIS__POOL__SISE",
            SECRET,
            r"EVENTKIT_REDIS__POOL__SISE .* did you mean EVENTKIT_REDIS__POOL__SIZE\?",
        ),
        ("eventkit_redis__credentials__pasword", SECRET, r"did you mean EVENTKIT_REDIS__CREDENTIALS__PASSWORD\?"),
        (
            "EVENTKIT_REDIS__TLS__CAFILE",
            SECRET,
            r"did you mean EVENTKIT_REDIS__TLS__CA_FILE\? .*REDIS__TLS__CERT_FILE, ",
        ),
    ],
)
def test_a_wrong_setting_of_an_adapter_names_its_variable_and_no_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=said) as raised:
        read_adapter_settings(OwnSettings)
    assert SECRET not in f"{raised.value} {raised.value!r} {raised.value.__cause__}"


def test_two_passwords_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_REDIS__CREDENTIALS__PASSWORD", SECRET)
    monkeypatch.setenv("EVENTKIT_REDIS__CREDENTIALS__PASSWORD_FILE", "/run/secrets/redis")
    with pytest.raises(
        SettingsError, match=r"EVENTKIT_REDIS__CREDENTIALS: .*password or password_file, not both"
    ) as raised:
        read_adapter_settings(OwnSettings)
    assert SECRET not in str(raised.value)


def test_secrets_are_not_in_a_bus_or_its_errors() -> None:
    url = f"no-such-scheme://user:{SECRET}@127.0.0.1:1"
    for broker in ADAPTERS:
        try:
            bus = eventkit.connect(broker, url)
        except EventkitError as error:
            assert SECRET not in f"{error} {error!r}"  # noqa: PT017 some refuse the URL here, some at start
        else:
            assert SECRET not in f"{bus!r} {bus.adapter!r} {vars(bus.adapter)!r}"
