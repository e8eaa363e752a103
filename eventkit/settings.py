"""Settings: EVENTKIT_* from the environment, checked."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSetting

from eventkit.adapter import Provision
from eventkit.errors import DeclarationError, SettingsError
from eventkit.names import logical
from eventkit.setting_values import explain, explain_unreadable

PREFIX = "EVENTKIT_"
Loop: TypeAlias = Literal["asyncio", "uvloop"]
_FOREIGN = ("EVENTKIT_TEST_",)
"""Variables of the tests' broker provisioner, which are none of a service's."""


class Settings(BaseSettings):
    """What a bus is made of. Each can be given to `connect()` instead."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, env_ignore_empty=True)

    broker: str = "memory"
    """An adapter's name: memory, kafka, rabbit, nats, redis, or another that is installed."""
    url: SecretStr | None = None
    """Where the broker is, such as `redis://user:password@host:6379`. None: on this machine, at its usual port."""
    service: str = "eventkit"
    """The source of messages from a bus that runs no service."""
    namespace: str = ""
    """Prefixes every name on the broker, so that several systems can share one. Empty: no prefix."""
    provision: Provision = Provision.CREATE
    """What may be done about missing topics and groups: create, validate or assume."""
    health_port: int | None = Field(default=None, ge=0, le=65535)
    """Where `eventkit run` tells its health over HTTP, and `eventkit health` asks. None: nowhere."""
    loop: Loop = "asyncio"
    """The event loop of `eventkit run`: Python's own, or uvloop, which the extra `speed` installs."""

    redact: str = ""
    """What is hidden where payloads are shown: names of fields and headers, `module:function`, joined by commas."""
    tracing: str = ""
    """What traces: otel, or another that is installed; several are joined by commas. Empty: nothing does."""
    metrics: str = ""
    """What measures: otel, prometheus, or another that is installed; several are joined by commas. Empty: nothing."""

    @field_validator("service", "namespace")
    @classmethod
    def _is_name(cls, value: str) -> str:
        try:
            return logical(value, "it") if value else value
        except DeclarationError as error:
            raise ValueError(str(error)) from error


def read_settings(adapters: Iterable[str]) -> Settings:
    """The settings of this process's environment. SettingsError names the variable that is wrong."""
    check_names(os.environ, adapters)
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(explain(error, Settings, PREFIX)) from None


def read_adapter_settings(settings: type[BaseSettings]) -> BaseSettings:
    """An adapter's own settings; a variable that is empty is one that is not set, as with `read_settings`.

    SettingsError names the variable that is wrong, and never shows a value: it may be a secret in the wrong place.
    """
    prefix = str(settings.model_config.get("env_prefix", PREFIX))
    _check_nested(os.environ, settings, prefix)
    try:
        return settings(_env_ignore_empty=True)
    except ValidationError as error:
        raise SettingsError(explain(error, settings, prefix)) from None
    except UnreadableSetting as error:
        raise SettingsError(explain_unreadable(error, prefix)) from None


def check_names(environment: Mapping[str, str], adapters: Iterable[str]) -> None:
    """Refuse a mistyped variable: SettingsError suggests the right one."""
    plain = {f"{PREFIX}{field.upper()}" for field in Settings.model_fields}
    nested = {f"{PREFIX}{adapter.upper()}__" for adapter in adapters}
    for name in environment:
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in plain or upper.startswith((*nested, *_FOREIGN)):
            continue
        head, separator, tail = upper.removeprefix(PREFIX).partition("__")
        near = _nearest(head + separator, [known.removeprefix(PREFIX) for known in plain | nested])
        hint = f"; did you mean {PREFIX}{near}{tail}?" if near else ""
        raise SettingsError(f"{name} is no setting of eventkit{hint} (settings: {', '.join(sorted(plain))})")


def _check_nested(environment: Mapping[str, str], settings: type[BaseModel], prefix: str) -> None:
    """Refuse a mistyped variable of an adapter, at any depth: pydantic overlooks it."""
    for name in environment:
        if not name.upper().startswith(prefix.upper()):
            continue
        path = name.upper().removeprefix(prefix.upper()).split("__")
        model = settings
        for depth, word in enumerate(path):
            fields = {field.upper(): info.annotation for field, info in model.model_fields.items()}
            if word not in fields:
                near = _nearest(word, fields)
                start = prefix.upper() + "__".join([*path[:depth], ""] if depth else [])
                hint = f"; did you mean {start}{'__'.join([near, *path[depth + 1 :]])}?" if near else ""
                known = ", ".join(sorted(start + field for field in fields))
                raise SettingsError(f"{name} is no setting of eventkit{hint} (settings: {known})")
            inner = fields[word]
            if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
                break  # a value, or something that pydantic reads by itself
            model = inner
        else:
            _check_parts(name, environment[name], model)


def _check_parts(name: str, value: str, model: type[BaseModel]) -> None:
    """Settings that have parts are those parts, or all of them in one as JSON."""
    try:
        whole = not value or isinstance(json.loads(value), dict)
    except ValueError:
        whole = False
    if not whole:
        parts = ", ".join(f"{name.upper()}__{part.upper()}" for part in model.model_fields)
        raise SettingsError(f"{name}: this is no setting but several; write each as a variable of its own: {parts}")


def _nearest(word: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, sorted(known), n=1)), None)
