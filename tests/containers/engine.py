"""Runs a command beside a Docker engine that has the images of Redis and NATS.

    python tests/containers/engine.py -- pytest tests/test_brokers.py

An engine that answers is used. Else one is started for the time of the command, as root, with its data in a temporary
folder and without touching the firewall; Debian's package docker.io is installed for it where it is missing. An image
that can neither be found nor pulled is made from the server that is installed here (`make_images.py`).

The command gets EVENTKIT_TEST_CONTAINERS=1, DOCKER_HOST and the names of the images that were made.
Exit code 75 (EX_TEMPFAIL): no engine can be had here; the last line says why.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import docker
from make_images import SERVERS, make

from eventkit.testing.brokers import install
from eventkit.testing.brokers.errors import NotThisWay
from eventkit.testing.brokers.nats import Nats
from eventkit.testing.brokers.recipe import Recipe
from eventkit.testing.brokers.redis import Redis

NO_ENGINE = 75
RECIPES: tuple[Recipe, ...] = (Redis(), Nats())


def main() -> int:
    command = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    if not command:
        say("usage: engine.py -- COMMAND ...")
        return 2
    signal.signal(signal.SIGTERM, told)
    try:
        with engine():
            for recipe in RECIPES:
                name_image(recipe)
            os.environ["EVENTKIT_TEST_CONTAINERS"] = "1"
            for name in [name for name in os.environ if name.startswith("EVENTKIT_TEST_") and name.endswith("_URL")]:
                del os.environ[name]  # an address there would be taken before the container
            return subprocess.run(command, check=False).returncode
    except NotThisWay as reason:
        say(f"no Docker engine can be had here: {reason}")
        return NO_ENGINE


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def told(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def engine() -> Iterator[None]:
    """The engine that answers, or one of our own."""
    if version := answers():
        say(f"docker: engine {version} answers")
        yield
        return
    if sys.platform != "linux" or os.geteuid() != 0:
        raise NotThisWay("none answers, and only root on Linux can start one: start Docker, or set DOCKER_HOST")
    if shutil.which("dockerd", path=install.search_path()) is None:
        install.system_packages("docker", ["docker.io"], say=say, otherwise="install a Docker engine")
    had_bridge = bridge().exists()
    with tempfile.TemporaryDirectory(prefix="eventkit-docker-", ignore_cleanup_errors=True) as name:
        process = launch(Path(name))
        try:
            say(f"docker: engine {wait(process, Path(name))} started for this run")
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if bridge().exists() and not had_bridge and (ip := shutil.which("ip", path=install.search_path())):
                subprocess.run([ip, "link", "delete", bridge().name], check=False)  # the engine leaves it behind


def launch(folder: Path) -> subprocess.Popen[bytes]:
    os.environ["DOCKER_HOST"] = f"unix://{folder / 'docker.sock'}"
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [
                shutil.which("dockerd", path=install.search_path()) or "dockerd",
                f"--host={os.environ['DOCKER_HOST']}",
                f"--data-root={folder / 'data'}",
                f"--exec-root={folder / 'exec'}",
                f"--pidfile={folder / 'pid'}",
                # Published ports then go through the engine's own proxy, and containers reach nothing outside:
                # enough for a broker, and neither the firewall nor the forwarding of this machine is changed.
                "--iptables=false",
                "--ip-forward=false",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": install.search_path()},
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509  (there is one thread)
        )


def end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: kill -9 of this script ends the engine too


def wait(process: subprocess.Popen[bytes], folder: Path) -> str:
    """The engine's version, once it answers."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if version := answers():
            return version
        time.sleep(0.2)
    tail = "\n    ".join((folder / "log").read_text(errors="replace").splitlines()[-8:])
    raise NotThisWay(f"dockerd does not come up. It said:\n    {tail}")


def answers() -> str | None:
    with contextlib.suppress(docker.errors.DockerException, OSError):
        client = docker.from_env(timeout=5)
        try:
            return str(client.version()["Version"])
        finally:
            client.close()
    return None


def bridge() -> Path:
    return Path("/sys/class/net/docker0")


def name_image(recipe: Recipe) -> None:
    """Leave the official image, or one that the environment names, where it can be had; else make one."""
    variable = f"EVENTKIT_TEST_{recipe.name.upper()}_IMAGE"
    image = os.environ.get(variable) or recipe.image("127.0.0.1", 0).name
    client = docker.from_env(timeout=120)
    try:
        try:
            client.images.get(image)
        except docker.errors.ImageNotFound:
            say(f"{recipe.name}: pulling the image {image} ...")
            client.images.pull(image)
        return
    except docker.errors.DockerException as error:
        reason = str(error).partition("\n")[0]
    finally:
        client.close()
    say(f"{recipe.name}: {image} cannot be pulled ({reason})")
    try:
        recipe.find()
    except NotThisWay:
        recipe.install(say)
    os.environ[variable] = make(recipe.name, SERVERS[recipe.name])
    say(f"{recipe.name}: made {os.environ[variable]} from the server installed here")


if __name__ == "__main__":
    sys.exit(main())
