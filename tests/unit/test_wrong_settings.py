"""Each setting with each kind of wrong value: our own error, which names the variable and what to write."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventkit import SettingsError
from eventkit.settings import Settings, read_adapter_settings, read_settings
from eventkit_kafka.settings import KafkaSettings
from eventkit_nats.settings import NatsSettings
from eventkit_rabbit.settings import RabbitSettings
from eventkit_redis.settings import RedisSettings

ADAPTERS: Mapping[str, type[BaseSettings]] = {
    "kafka": KafkaSettings,
    "nats": NatsSettings,
    "rabbit": RabbitSettings,
    "redis": RedisSettings,
}
ANY_TEXT = (str, SecretStr, Path)
"""Where a text can be wrong, whoever uses it says so: a broker that is unknown, a file that is missing."""
NOT_OURS = re.compile(
    r"Input should|Value error|Extra inputs|valid (timedelta|integer|boolean)|EnvSettingsSource|\[type="
)


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("EVENTKIT_"):
            monkeypatch.delenv(name)


def fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name.upper()}", field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name.upper()}__")


def plain(field: FieldInfo) -> Any:
    some = [arg for arg in get_args(field.annotation) if arg is not type(None)]
    return some[0] if type(None) in get_args(field.annotation) else field.annotation


def wrong_values(field: FieldInfo) -> Iterator[str]:
    kind = plain(field)
    if kind in ANY_TEXT:
        if any(getattr(item, "pattern", None) for item in field.metadata):
            yield "not this, ever"
        return
    yield "abc"
    yield from {timedelta: ("30", "30s", "-PT1S"), int: ("1.5", "-2", "1_0_", "ten"), bool: ("maybe", "2")}.get(
        kind, ()
    )
    for item in field.metadata:
        limit = getattr(item, "le", None)
        if limit is not None:
            yield f"P{limit.days + 1}D" if isinstance(limit, timedelta) else str(limit + 1)


def all_settings() -> Iterator[tuple[str, str | None, FieldInfo]]:
    for variable, field in fields(Settings, "EVENTKIT_"):
        yield variable, None, field
    for adapter, settings in ADAPTERS.items():
        for variable, field in fields(settings, f"EVENTKIT_{adapter.upper()}__"):
            yield variable, adapter, field


WRONG = [(variable, adapter, value) for variable, adapter, field in all_settings() for value in wrong_values(field)]


@pytest.mark.parametrize(("variable", "adapter", "value"), WRONG, ids=[f"{name}={value}" for name, _, value in WRONG])
def test_a_wrong_value_is_said_in_our_words(
    monkeypatch: pytest.MonkeyPatch, variable: str, adapter: str | None, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as raised:
        read_adapter_settings(ADAPTERS[adapter]) if adapter else read_settings(ADAPTERS)
    said = str(raised.value)
    assert said.startswith(f"{variable}: "), said
    assert "; write " in said, "the mend"
    assert not NOT_OURS.search(said), said
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None or raised.value.__suppress_context__, "a trace has our words alone"


def test_all_settings_were_tried() -> None:
    tried = {variable for variable, _, _ in WRONG}
    left = {variable for variable, _, field in all_settings() if variable not in tried and plain(field) not in ANY_TEXT}
    assert left == set()
    assert len(tried) > 40


@pytest.mark.parametrize(("variable", "adapter", "field"), list(all_settings()), ids=lambda value: str(value)[:60])
def test_what_is_empty_is_not_set(
    monkeypatch: pytest.MonkeyPatch, variable: str, adapter: str | None, field: FieldInfo
) -> None:
    monkeypatch.setenv(variable, "")
    found = read_adapter_settings(ADAPTERS[adapter]) if adapter else read_settings(ADAPTERS)
    monkeypatch.delenv(variable)
    assert found == (read_adapter_settings(ADAPTERS[adapter]) if adapter else read_settings(ADAPTERS))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "EVENTKIT_REDIS__LEASE",
            "abc",
            (
                "this is no time; write a time from 200 ms to 12 h as PT30S or 00:00:30 (30 seconds); "
                "without it, 30 s is taken"
            ),
        ),
        (
            "EVENTKIT_REDIS__BATCH",
            "10001",
            "this is too large; write a whole number from 1 to 10000; without it, 500 is taken",
        ),
        ("EVENTKIT_REDIS__TLS__ENABLED", "maybe", "this cannot be taken; write true or false"),
        ("EVENTKIT_HEALTH_PORT", "70000", "this is too large; write a whole number from 0 to 65535"),
        ("EVENTKIT_LOOP", "trio", "this cannot be taken; write asyncio or uvloop; without it, asyncio is taken"),
    ],
)
def test_how_it_is_said(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=rf"^{re.escape(f'{variable}: {said}')}$"):
        read_adapter_settings(RedisSettings) if "REDIS" in variable else read_settings(ADAPTERS)


class Grade(Enum):
    HIGH = "high"
    LOW = "low"


class Others(BaseSettings):
    """What adapters of others may have."""

    model_config = SettingsConfigDict(env_prefix="EVENTKIT_REDIS__", env_nested_delimiter="__")

    hosts: list[int] = []
    share: float = 0.5
    grade: Grade = Grade.LOW
    mode: Literal["a", "b", "c"] = "a"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HOSTS", "abc", "this is no JSON; it has several parts: write them as JSON"),
        ("SHARE", "abc", "this is no number; write a number; without it, 0.5 is taken"),
        ("GRADE", "abc", "this cannot be taken; write high or low; without it, low is taken"),
        ("MODE", "abc", "this cannot be taken; write a, b or c; without it, a is taken"),
    ],
)
def test_settings_of_other_kinds(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(f"EVENTKIT_REDIS__{name}", value)
    with pytest.raises(SettingsError, match=rf"^EVENTKIT_REDIS__{name}: {said}$"):
        read_adapter_settings(Others)


def test_an_item_of_a_list_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_REDIS__HOSTS", '[1, "x"]')
    with pytest.raises(SettingsError, match=r"^EVENTKIT_REDIS__HOSTS"):
        read_adapter_settings(Others)
    assert get_origin(Others.model_fields["hosts"].annotation) is list
