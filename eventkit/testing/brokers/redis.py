"""Redis: a system package."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from eventkit.testing.brokers import install, probe
from eventkit.testing.brokers.errors import NotThisWay
from eventkit.testing.brokers.process import Program, Say, free_port
from eventkit.testing.brokers.recipe import Found, Image, Settings, merged


class Redis:
    name = "redis"

    def ask(self, host: str, port: int) -> str:
        return probe.redis(host, port)

    def url(self, host: str, port: int) -> str:
        return f"redis://{host}:{port}"

    def image(self, host: str, port: int) -> Image:
        command = ("--appendonly", "yes", "--appendfsync", "everysec", "--protected-mode", "no")
        return Image("redis:7.4.9", 6379, command)

    def find(self) -> Found:
        for program in ("redis-server", "valkey-server"):
            if path := shutil.which(program, path=install.search_path()):
                return Found(Path(path))
        raise NotThisWay("redis-server is not on the PATH")

    def install(self, say: Say) -> None:
        install.system_packages(
            "redis", ["redis-server"], service=("redis-server", 6379), say=say,
            otherwise="install Redis 6.2 or newer (macOS: brew install redis)",
        )  # fmt: skip

    def programs(self, found: Found, folder: Path, settings: Settings, say: Say) -> Sequence[Program]:
        port = free_port()
        lines = merged(
            {
                "bind": "127.0.0.1",
                "port": str(port),
                "dir": str(folder),
                "daemonize": "no",
                "appendonly": "yes",
                "appendfsync": "everysec",
                "save": '""',
                "logfile": '""',
            },
            settings,
        )
        file = folder / "redis.conf"
        file.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
        return [Program("redis", [str(found.path), str(file)], port, self.ask, seconds=30)]
