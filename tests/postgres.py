"""PostgreSQL, provided as the brokers are: `provide(Postgres())`."""

from __future__ import annotations

import os
import shutil
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from eventkit.testing.brokers import install
from eventkit.testing.brokers.errors import NotThisWay
from eventkit.testing.brokers.probe import NotReady
from eventkit.testing.brokers.process import Program, Say, free_port, run
from eventkit.testing.brokers.recipe import Found, Image, Settings, merged

_PACKAGES = Path("/usr/lib/postgresql")
"""Where Debian keeps the servers, by their version."""


class Postgres:
    name = "postgres"

    def ask(self, host: str, port: int) -> str:
        """What a client is told at its start; one that asks for a password does not tell its version."""
        with socket.create_connection((host, port), timeout=2) as line:
            about = b"user\0postgres\0database\0postgres\0\0"
            line.sendall(struct.pack(">ii", len(about) + 8, 196608) + about)
            version = "unknown"
            while True:
                kind, body = _message(line)
                if kind == b"R" and struct.unpack_from(">i", body)[0] != 0:
                    return "unknown (asks for a password)"
                if kind == b"E":
                    raise NotReady(body.replace(b"\0", b" ").decode(errors="replace"))
                if kind == b"S" and body.startswith(b"server_version\0"):
                    version = body.split(b"\0")[1].decode()
                if kind == b"Z":
                    return version

    def url(self, host: str, port: int) -> str:
        return f"postgresql://postgres@{host}:{port}/postgres"

    def image(self, host: str, port: int) -> Image:
        return Image("postgres:16-alpine", 5432, environment={"POSTGRES_HOST_AUTH_METHOD": "trust"})

    def find(self) -> Found:
        folders = sorted(_PACKAGES.glob("*/bin"), key=lambda path: path.parent.name.zfill(4), reverse=True)
        for path in (*map(str, folders), install.search_path()):
            if (program := shutil.which("postgres", path=path)) and shutil.which("initdb", path=path):
                return Found(Path(program))
        raise NotThisWay("neither on the PATH nor under /usr/lib/postgresql is there a postgres with its initdb")

    def install(self, say: Say) -> None:
        install.system_packages(
            "postgres", ["postgresql"], service=("postgresql", 5432), say=say,
            otherwise="install PostgreSQL 13 or newer (macOS: brew install postgresql)",
        )  # fmt: skip

    def programs(self, found: Found, folder: Path, settings: Settings, say: Say) -> Sequence[Program]:
        port = free_port()
        data = folder / "data"
        as_user = _not_as_root(folder)
        initdb = found.path.resolve().with_name("initdb")
        run(
            [*as_user, str(initdb), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"],
            what="postgres: making a cluster", seconds=60, say=say, folder=folder,
        )  # fmt: skip
        ours = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "100",
        }
        options = [word for name, value in merged(ours, settings).items() for word in ("-c", f"{name}={value}")]
        command = [*as_user, str(found.path.resolve()), "-D", str(data), *options]
        return [Program("postgres", command, port, self.ask, seconds=30)]


def _not_as_root(folder: Path) -> list[str]:
    """PostgreSQL refuses to be run by root: what to put before its commands."""
    if os.geteuid() != 0:
        return []
    import pwd

    program = shutil.which("setpriv")
    if program is None:
        raise NotThisWay("postgres does not run as root, and there is no setpriv to run it as another user")
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, user.pw_uid, user.pw_gid)
        return [program, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    raise NotThisWay("postgres does not run as root, and there is no user postgres or nobody")


def _message(line: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(line, 5)
    kind, (size,) = head[:1], struct.unpack_from(">i", head, 1)
    if not 4 <= size < 65_536:
        raise NotReady(f"an answer that is none of PostgreSQL's: {head!r}")
    return kind, _exactly(line, size - 4)


def _exactly(line: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        piece = line.recv(size - len(got))
        if not piece:
            raise NotReady("the connection was closed")
        got += piece
    return got
