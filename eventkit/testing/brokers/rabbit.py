"""RabbitMQ: a system package, run as a node of its own beside any that the machine already runs."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from eventkit.testing.brokers import install, probe
from eventkit.testing.brokers.errors import NotThisWay
from eventkit.testing.brokers.process import Program, Say, free_port
from eventkit.testing.brokers.recipe import Found, Image, Settings, merged

# The server's own script comes first. Debian's /usr/sbin/rabbitmq-server refuses any user but root and rabbitmq,
# and as root changes to the user rabbitmq, who could not write to our folder.
_PLACES = (
    "/usr/lib/rabbitmq/bin",
    "/usr/local/opt/rabbitmq/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
)

_ADVANCED = "advanced."
"""Begins the names of settings that only advanced.config knows."""


class Rabbit:
    name = "rabbit"

    def ask(self, host: str, port: int) -> str:
        return probe.rabbit(host, port)

    def url(self, host: str, port: int) -> str:
        return f"amqp://guest:guest@{host}:{port}/"

    def image(self, host: str, port: int) -> Image:
        # By default guest may log in from the container's own loopback only.
        return Image(
            "rabbitmq:4.1.4", 5672, environment={"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-rabbit loopback_users []"}
        )

    def find(self) -> Found:
        for place in (*_PLACES, install.search_path()):
            if path := shutil.which("rabbitmq-server", path=place):
                if shutil.which("epmd", path=install.search_path()) is None:
                    raise NotThisWay(f"{path} is there, but Erlang's epmd is not on the PATH")
                return Found(Path(path))
        raise NotThisWay("rabbitmq-server is neither in /usr/lib/rabbitmq/bin nor on the PATH")

    def install(self, say: Say) -> None:
        install.system_packages(
            "rabbit", ["rabbitmq-server"], service=("rabbitmq-server", 5672), say=say,
            otherwise="install RabbitMQ 3.10 or newer (macOS: brew install rabbitmq)",
        )  # fmt: skip

    def programs(self, found: Found, folder: Path, settings: Settings, say: Say) -> Sequence[Program]:
        port, distribution, names = free_port(), free_port(), free_port()
        lines = merged(
            {
                "listeners.tcp.1": f"127.0.0.1:{port}",
                "disk_free_limit.absolute": "50MB",
                "log.file": "false",
                "log.console": "true",
                "log.console.level": "warning",
            },
            settings,
        )
        advanced = {name: lines.pop(name) for name in list(lines) if name.startswith(_ADVANCED)}
        if advanced:
            own = ", ".join(f"{{{name.removeprefix(_ADVANCED)}, {value}}}" for name, value in advanced.items())
            (folder / "advanced.config").write_text(f"[{{rabbit, [{own}]}}].\n")
        config = folder / "rabbitmq.conf"
        config.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
        plugins = folder / "enabled_plugins"
        plugins.write_text(
            "[rabbitmq_management].\n" if any(key.startswith("management.") for key in lines) else "[].\n"
        )
        nothing = folder / "rabbitmq-env.conf"
        nothing.touch()
        environment = {
            "HOME": str(folder),  # Erlang keeps its cookie there: a node of our own has a cookie of its own
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(names),
            # A host name that always resolves, whatever the machine or container calls itself.
            "RABBITMQ_NODENAME": f"eventkit-{port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONF_ENV_FILE": str(nothing),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            # Makes the script become the server instead of standing before it: signals then reach the server itself.
            "RUNNING_UNDER_SYSTEMD": "1",
            # epmd is started by us (below): one that Erlang starts by itself would outlive everything.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
        }
        epmd = shutil.which("epmd", path=install.search_path()) or "epmd"
        without = ("RABBITMQ_", "ERL_")
        return [
            Program(
                "epmd", [epmd, "-address", "127.0.0.1", "-port", str(names)], names, _accepts, environment, without
            ),
            Program("rabbit", [str(found.path)], port, self.ask, environment, without, seconds=90),
        ]


def _accepts(host: str, port: int) -> str:
    """epmd is ready when it takes a connection."""
    socket.create_connection((host, port), timeout=2).close()
    return ""
