"""Provides a broker by the first way that works."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from eventkit.testing.brokers import probe
from eventkit.testing.brokers.broker import Broker, How
from eventkit.testing.brokers.containers import Container, have_image
from eventkit.testing.brokers.errors import BrokerUnavailable, NotThisWay
from eventkit.testing.brokers.kafka import Kafka
from eventkit.testing.brokers.nats import Nats
from eventkit.testing.brokers.process import Say, Server
from eventkit.testing.brokers.rabbit import Rabbit
from eventkit.testing.brokers.recipe import Recipe, Settings
from eventkit.testing.brokers.redis import Redis

_ALL: tuple[Recipe, ...] = (Redis(), Nats(), Rabbit(), Kafka())
_RECIPES = {recipe.name: recipe for recipe in _ALL}

NAMES = tuple(_RECIPES)
"""The brokers that can be provided."""

PATIENCE = 10.0
"""Seconds that a broker named by the environment is given to answer: it may just have been started."""


def say_aloud(line: str) -> None:
    sys.stdout.write(line + "\n")  # in one piece: several brokers may be provided at the same time
    sys.stdout.flush()


def provide(name: str | Recipe, *, say: Say = say_aloud, settings: Settings | None = None) -> Broker:
    """A running broker: from the environment, a container, an installed server, or one installed now.

    `name` is one of `NAMES`, or the recipe of a server of another kind. `settings` are the server's own, by its own
    names (`{"maxmemory": "50mb"}`); None as a value leaves the server's default where we would set another
    (`{"group.initial.rebalance.delay.ms": None}`). With settings a server of its own is started on this machine,
    whatever the environment offers.

    Raises `BrokerUnavailable` with each way that was tried and why it failed.
    """
    recipe = _recipe(name) if isinstance(name, str) else name
    name = recipe.name
    ways: list[tuple[str, Callable[[], Broker]]] = [
        ("environment", lambda: _from_environment(recipe)),
        ("container", lambda: _in_container(recipe, say)),
        ("installed", lambda: _on_this_machine(recipe, "installed", settings or {}, say)),
        ("install", lambda: _installed_now(recipe, settings or {}, say)),
    ]
    tried: list[tuple[str, str]] = []
    for way, attempt in ways[2:] if settings else ways:
        try:
            broker = attempt()
        except NotThisWay as reason:
            tried.append((way, str(reason)))
            if reason.aloud:
                say(f"{name}: {reason}; trying the next way")
            continue
        say(f"{name}: {broker.version} at {broker.url} ({broker.how})")
        return broker
    raise BrokerUnavailable(name, tried)


def make_available(name: str, *, say: Say = say_aloud) -> None:
    """Make sure that `provide(name)` will find the broker, without starting it: fetches an image or installs."""
    recipe = _recipe(name)
    tried: list[tuple[str, str]] = []
    if url := os.environ.get(_variable(name)):
        say(f"{name}: {url} (environment)")
        return
    try:
        have_image(recipe, say)
    except NotThisWay as reason:
        tried.append(("container", str(reason)))
    else:
        say(f"{name}: the image is there")
        return
    try:
        found = recipe.find()
    except NotThisWay as missing:
        tried.append(("installed", str(missing)))
        try:
            recipe.install(say)
            found = recipe.find()
        except NotThisWay as reason:
            tried.append(("install", str(reason)))
            raise BrokerUnavailable(name, tried) from None
    say(f"{name}: installed ({found.version or found.path.name})")


def _recipe(name: str) -> Recipe:
    try:
        return _RECIPES[name]
    except KeyError:
        raise ValueError(f"unknown broker {name!r}; one of: {', '.join(NAMES)}") from None


def _variable(name: str) -> str:
    return f"EVENTKIT_TEST_{name.upper()}_URL"


def _from_environment(recipe: Recipe) -> Broker:
    variable = _variable(recipe.name)
    url = os.environ.get(variable)
    if not url:
        raise NotThisWay(f"{variable} is not set (a server's address, like {recipe.url('localhost', 12345)})")
    # From here on a failure is an error: somebody asked for this very server, and another would hide that.
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BrokerUnavailable(recipe.name, [("environment", f"{variable}: {error}")]) from None
    if host is None or port is None:
        example = recipe.url("127.0.0.1", 12345)
        reason = f"{variable} must name a host and a port, like {example}"
        raise BrokerUnavailable(recipe.name, [("environment", reason)])
    ask = probe.encrypted(recipe.ask) if parts.scheme in _ENCRYPTED else recipe.ask
    try:
        version = probe.wait(ask, host, port, seconds=PATIENCE)
    except probe.NotReady as error:
        raise BrokerUnavailable(recipe.name, [("environment", f"{variable}: {error}")]) from None
    if version.startswith("unknown"):  # Kafka does not tell; who has started it may
        version = os.environ.get(f"EVENTKIT_TEST_{recipe.name.upper()}_VERSION") or version
    return Broker(recipe.name, url, version, "environment")


_ENCRYPTED = {"rediss", "amqps", "tls", "wss", "kafkas", "kafka+ssl"}


def _in_container(recipe: Recipe, say: Say) -> Broker:
    container = Container(recipe, say)
    version = container.version
    if version.startswith("unknown") and ":" in container.image:
        version = container.image.rpartition(":")[2]
    return Broker(recipe.name, recipe.url(container.host, container.port), version, "container", container)


def _on_this_machine(recipe: Recipe, how: How, settings: Settings, say: Say) -> Broker:
    found = recipe.find()
    folder = Path(tempfile.mkdtemp(prefix=f"eventkit-{recipe.name}-"))
    try:
        say(f"{recipe.name}: starting {found.path.name if found.version is None else found.version} ...")
        programs = recipe.programs(found, folder, settings, say)
        server = Server(recipe.name, folder, programs, say)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    try:
        server.start()
    except BaseException:
        server.stop()
        raise
    url = recipe.url("127.0.0.1", programs[-1].port)
    return Broker(recipe.name, url, found.version or server.version, how, server)


def _installed_now(recipe: Recipe, settings: Settings, say: Say) -> Broker:
    try:
        recipe.find()
    except NotThisWay:
        recipe.install(say)
        return _on_this_machine(recipe, "just installed", settings, say)
    raise NotThisWay("nothing to install: it is there")
