"""A compose.yaml with brokers: the images that tests run in containers, with health checks and dashboards.

    python -m eventkit.testing.brokers.compose redis nats > compose.yaml

All ports are on the loopback alone, for there are no passwords.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from eventkit.testing.brokers.kafka import Kafka
from eventkit.testing.brokers.nats import Nats
from eventkit.testing.brokers.rabbit import Rabbit
from eventkit.testing.brokers.recipe import Recipe
from eventkit.testing.brokers.redis import Redis

Value: TypeAlias = "str | int | Sequence[str] | Mapping[str, Value]"

PROFILE = "dashboards"
_LOOPBACK = "127.0.0.1"
_WIDTH = 120
_KAFKA_INSIDE = "kafka:19092"
"""How other containers reach Kafka: it gives out addresses, and 127.0.0.1 is another place in there."""


@dataclass(frozen=True)
class Dashboard:
    """A page that shows what is on a broker."""

    image: str
    port: int
    """In the container, and by default on this machine."""
    health: str
    """A shell command that succeeds when it answers."""
    environment: Mapping[str, str] = field(default_factory=dict)
    published: int | None = None
    data: str | None = None
    """The folder that it keeps its settings in."""


@dataclass(frozen=True)
class Composed:
    """A broker as a service of a compose file, as far as its recipe does not say."""

    recipe: Recipe
    data: str
    """The folder of what must outlive a container."""
    health: str
    """A shell command that succeeds when it can be used."""
    every: int = 5
    """Seconds between two looks."""
    command: Sequence[str] = ()
    """Beside those of the recipe."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside, or instead of, that of the recipe."""
    ports: Sequence[int] = ()
    """Beside that of the clients."""
    variant: str = ""
    """Of the image: the same server, with a dashboard in it."""
    dashboard: Dashboard | None = None


BROKERS: Mapping[str, Composed] = {
    "redis": Composed(
        Redis(),
        data="/data",
        health="redis-cli ping | grep -q PONG",
        dashboard=Dashboard(
            "redis/redisinsight:2.70",
            5540,
            "wget -q -O /dev/null http://127.0.0.1:5540/api/health/",
            {"RI_REDIS_HOST": "redis", "RI_REDIS_PORT": "6379", "RI_REDIS_ALIAS": "eventkit"},
            data="/data",
        ),
    ),
    "nats": Composed(
        Nats(),
        data="/data",
        command=("-sd", "/data", "-m", "8222"),
        health="wget -q -O /dev/null 'http://127.0.0.1:8222/healthz?js-enabled-only=true'",
        ports=(8222,),
        # its connection is made by hand, once: nats://nats:4222
        dashboard=Dashboard(
            "ghcr.io/nats-nui/nui:0.9", 31311, "wget -q -O /dev/null http://127.0.0.1:31311/", data="/db"
        ),
    ),
    "rabbit": Composed(
        Rabbit(),
        data="/var/lib/rabbitmq",
        health="rabbitmq-diagnostics -q check_running && rabbitmq-diagnostics -q check_port_connectivity",
        ports=(15672,),
        variant="-management",
    ),
    "kafka": Composed(
        Kafka(),
        data="/var/lib/kafka/data",
        environment={
            "KAFKA_LOG_DIRS": "/var/lib/kafka/data",
            "KAFKA_LISTENERS": "PLAINTEXT://:9092,INSIDE://:19092,CONTROLLER://127.0.0.1:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{_LOOPBACK}:9092,INSIDE://{_KAFKA_INSIDE}",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_INTER_BROKER_LISTENER_NAME": "INSIDE",
        },
        health=f"/opt/kafka/bin/kafka-broker-api-versions.sh --bootstrap-server {_LOOPBACK}:9092 > /dev/null",
        every=10,  # it starts a JVM
        dashboard=Dashboard(
            "ghcr.io/kafbat/kafka-ui:v1.5.0",
            8080,
            "wget -q -O /dev/null http://127.0.0.1:8080/actuator/health",
            {"KAFKA_CLUSTERS_0_NAME": "eventkit", "KAFKA_CLUSTERS_0_BOOTSTRAPSERVERS": _KAFKA_INSIDE},
            published=8090,  # 8080 is what one's own program has
        ),
    ),
}


def compose(names: Sequence[str]) -> str:
    """The text of a compose.yaml with these brokers, and a dashboard for each. ValueError for an unknown name."""
    for name in names:
        if name not in BROKERS:
            raise ValueError(f"unknown broker {name!r}; one of: {', '.join(BROKERS)}")
    services: dict[str, Value] = {}
    volumes: dict[str, Value] = {}
    for name in names:
        composed = BROKERS[name]
        services[name] = _broker(name, composed)
        volumes[name] = {}
        if composed.dashboard is not None:
            services[f"{name}-dashboard"] = _dashboard(name, composed.dashboard)
            if composed.dashboard.data is not None:
                volumes[f"{name}-dashboard"] = {}
    return "\n".join([*_comment(names), *_lines({"services": services, "volumes": volumes}), ""])


def url(name: str) -> str:
    """What goes into `EVENTKIT_URL` for the broker of such a file."""
    return BROKERS[name].recipe.url("localhost", _port(BROKERS[name]))


def _broker(name: str, composed: Composed) -> Mapping[str, Value]:
    image = composed.recipe.image(_LOOPBACK, _port(composed))
    command = [*_kept(image.command, composed), *composed.command]
    environment = {**image.environment, **composed.environment}
    return {
        "image": image.name + composed.variant,
        "hostname": name,  # RabbitMQ keeps its data by it
        **({"command": command} if command else {}),
        **({"environment": environment} if environment else {}),
        "ports": [_published(port, port) for port in (image.port, *composed.ports)],
        "volumes": [f"{name}:{composed.data}"],
        "healthcheck": _health(composed.health, composed.every),
        "restart": "unless-stopped",
    }


def _kept(command: Sequence[str], composed: Composed) -> Sequence[str]:
    """The recipe's words but for a folder that is set anew: a container of a test keeps nothing."""
    words = list(command)
    for option in [word for word in words if word.startswith("-") and word in composed.command]:
        at = words.index(option)
        del words[at : at + 2]
    return words


def _dashboard(name: str, dashboard: Dashboard) -> Mapping[str, Value]:
    return {
        "image": dashboard.image,
        "profiles": [PROFILE],
        "depends_on": {name: {"condition": "service_healthy"}},
        **({"environment": dashboard.environment} if dashboard.environment else {}),
        "ports": [_published(dashboard.published or dashboard.port, dashboard.port)],
        **({"volumes": [f"{name}-dashboard:{dashboard.data}"]} if dashboard.data is not None else {}),
        "healthcheck": _health(dashboard.health),
        "restart": "unless-stopped",
    }


def _health(command: str, every: int = 5) -> Mapping[str, Value]:
    return {
        "test": ["CMD-SHELL", command],
        "interval": f"{every}s",
        "timeout": "10s",
        "retries": 12,
        "start_period": "20s",
    }


def _port(composed: Composed) -> int:
    return composed.recipe.image(_LOOPBACK, 0).port


def _published(outside: int, inside: int) -> str:
    return f"{_LOOPBACK}:{outside}:{inside}"


def _comment(names: Sequence[str]) -> Iterator[str]:
    yield "# Brokers to develop with, on this machine alone: there are no passwords."
    yield "#"
    ways = {
        f"docker compose up -d --wait {names[-1]}": "one of them; all without a name" if names[1:] else "starts it",
        f"docker compose --profile {PROFILE} up -d --wait": "with the pages below",
        "docker compose down --volumes": "ends them, and forgets what they held",
    }
    width = max(map(len, ways))
    yield from (f"#   {command:<{width}}   {what}" for command, what in ways.items())
    yield "#"
    for name in names:
        composed = BROKERS[name]
        dashboard = composed.dashboard
        page = f"http://localhost:{composed.ports[0] if dashboard is None else dashboard.published or dashboard.port}"
        yield f"#   {name:<6}  {url(name):<34}  {page}"
    yield ""


def _lines(mapping: Mapping[str, Value], depth: int = 0) -> Iterator[str]:
    """YAML, as far as it is needed: texts are quoted as in JSON, which YAML contains."""
    indent = "  " * depth
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}:{'' if value else ' {}'}"
            yield from _lines(value, depth + 1)
            if depth == 1 and value:
                yield ""
        elif isinstance(value, str | int):
            yield f"{indent}{name}: {json.dumps(value)}"
        elif len(line := f"{indent}{name}: {json.dumps(list(value))}") <= _WIDTH:
            yield line
        else:
            yield f"{indent}{name}:"
            yield from (f"{indent}  - {json.dumps(item)}" for item in value)


if __name__ == "__main__":
    sys.stdout.write(compose(sys.argv[1:] or list(BROKERS)))
