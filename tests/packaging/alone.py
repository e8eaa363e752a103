"""That one extra, and nothing else, brings what it is for: run where eventkit is installed with it alone.

python alone.py redis
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

BROKERS = ("kafka", "nats", "rabbit", "redis")
MODULES = {
    "docs": ("eventkit.asyncapi.pages", "yaml"),
    "speed": ("uvloop",),
    "reload": ("watchfiles",),
    "sql": ("eventkit.sql",),
    "prometheus": ("eventkit.prometheus",),
    "starlette": ("eventkit.starlette",),
    "fastapi": ("eventkit.fastapi",),
    "otel": ("eventkit.otel",),
    "ui": ("eventkit.ui.app", "eventkit.ui.server"),
}
SERVICE = """
from eventkit import Event, Service


class Sold(Event, topic="sales"):
    item: str


service = Service("shop")


@service.handler
async def sold(event: Sold) -> None: ...
"""
COMMANDS = {
    "docs": (("docs", "yaml", "shop:service"), ("docs", "build", "shop:service", "--output", "site")),
    "all": (("docs", "yaml", "shop:service"),),
}


def main(extra: str) -> None:
    import eventkit

    for name in BROKERS if extra == "all" else (extra,):
        if name in BROKERS:
            eventkit.connect(name)  # its client is here; nothing is asked of a broker
    for module in MODULES.get(extra, ()):
        importlib.import_module(module)
    Path("shop.py").write_text(SERVICE)
    program = str(Path(sys.executable).with_name("eventkit"))
    for words in COMMANDS.get(extra, ()):
        subprocess.run([program, *words], check=True, stdout=subprocess.DEVNULL, timeout=120)
    known = {*BROKERS, *MODULES, "all"}
    assert extra in known, f"say here what {extra} is for"
    print(f"{extra}: what it is for works", file=sys.stderr)


if __name__ == "__main__":
    os.environ.pop("EVENTKIT_BROKER", None)
    main(sys.argv[1])
