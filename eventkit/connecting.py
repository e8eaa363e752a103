"""A bus to the broker that the environment names, or the arguments."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pydantic import SecretStr

from eventkit import discovery, redacting
from eventkit.adapter import Adapter, Connection, Provision
from eventkit.adopting import BrokerObject
from eventkit.bus import Bus
from eventkit.clock import Clock
from eventkit.errors import DeclarationError, SettingsError
from eventkit.instruments import Instrument
from eventkit.names import logical
from eventkit.settings import Settings, read_adapter_settings, read_settings
from eventkit.watching import Watch
from eventkit.wire import JSON_SERIALIZER, Serializer

log = logging.getLogger("eventkit")


def connect(  # noqa: PLR0913 each is a setting, or comes with tests
    broker: str | BrokerObject | None = None,
    url: str | SecretStr | None = None,
    *,
    service: str | None = None,
    namespace: str | None = None,
    provision: Provision | str | None = None,
    serializer: Serializer = JSON_SERIALIZER,
    adapter: Adapter | None = None,
    clock: Clock | None = None,
    watch: Watch = None,
    instruments: Sequence[Instrument] | None = None,
) -> Bus:
    """A bus to the broker that the environment names: `async with eventkit.connect() as bus`.

    Each argument that is not None takes the place of its variable: `broker` of EVENTKIT_BROKER, `url` of EVENTKIT_URL,
    `service` (the source of what this bus publishes) of EVENTKIT_SERVICE, and so on. `adapter` takes a ready one
    instead, and then the environment's broker and url are not read. `broker` may be a FastStream broker object, such
    as a `RedisBroker`: then its connection settings are used, and its own subscribers go on working; the object stays
    its owner's to start and stop. `instruments` trace and measure; None: those that EVENTKIT_TRACING and
    EVENTKIT_METRICS name, which are none by default. No connection is opened before `async with`.

    Raises SettingsError for a wrong or mistyped setting, AdapterNotFound for an unknown broker or a missing extra.
    """
    settings = read_settings(discovery.installed())
    namespace = settings.namespace if namespace is None else _named("namespace", namespace)
    source = _named("service", service) if service else settings.service
    try:
        how = settings.provision if provision is None else Provision(provision)
    except ValueError as error:
        raise SettingsError(f"provision={provision!r}: it is create, validate or assume") from error
    if adapter is None:
        adapter = _adapter(broker, url, settings, namespace, source)
    if instruments is None:
        said = source if service or "service" in settings.model_fields_set else ""
        instruments = discovery.instruments(settings.tracing, settings.metrics, said)
    return Bus(
        adapter,
        source=source,
        provision=how,
        serializer=serializer,
        clock=clock,
        watch=watch,
        instruments=instruments,
        redactor=redacting.read(settings.redact),
    )


def _named(argument: str, value: str) -> str:
    try:
        return logical(value, f"connect({argument}=...)") if value else value
    except DeclarationError as error:
        raise SettingsError(str(error)) from error


def _adapter(
    broker: str | BrokerObject | None, url: str | SecretStr | None, settings: Settings, namespace: str, client: str
) -> Adapter:
    if not isinstance(broker, str | None):
        if url is not None:
            raise SettingsError("connect(broker=<object>, url=...): the object has a URL already; leave url out")
        adopting = discovery.adopting(broker)
        own = None if adopting.settings is None else read_adapter_settings(adopting.settings)
        return adopting.from_broker(broker, Connection(url=None, namespace=namespace, client=client, settings=own))
    name = broker or settings.broker
    secret = SecretStr(url) if isinstance(url, str) else url or settings.url
    if broker is None and "broker" not in settings.model_fields_set:
        if secret is not None:
            raise SettingsError(
                f"{'EVENTKIT_URL' if url is None else 'a URL'} is given, but no broker: say which it is, such as "
                f"EVENTKIT_BROKER={next(other for other in discovery.installed() if other != name)}"
            )
        log.warning("EVENTKIT_BROKER is not set: messages stay in this process's memory and end with it")
    cls = discovery.load(name)
    own = None if cls.settings is None else read_adapter_settings(cls.settings)
    return cls(Connection(url=secret, namespace=namespace, client=client, settings=own))
