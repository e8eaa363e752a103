# ruff: noqa: S603  (what is run is named here, or by the person at the command line)
"""A broker in a container, through testcontainers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from eventkit.testing.brokers import probe
from eventkit.testing.brokers.errors import NotThisWay
from eventkit.testing.brokers.process import Say, free_port
from eventkit.testing.brokers.recipe import Recipe

T = TypeVar("T")

# Removes the container when the process that reads from `provide` is gone without having done so (kill -9).
# testcontainers has a container of its own for that (Ryuk), which needs one more image.
_GUARD = """
import sys
if not sys.stdin.read(1):
    import docker
    docker.from_env().api.remove_container(sys.argv[1], force=True, v=True)
"""


class Container:
    """A running container with a fixed address, so that it can be killed and started again."""

    def __init__(self, recipe: Recipe, say: Say) -> None:
        self._recipe = recipe
        self._say = say
        self._guard: subprocess.Popen[bytes] | None = None
        engine = _engine()
        self.host: str = engine.host()
        self.port = free_port()
        image = recipe.image(self.host, self.port)
        self.image = image_name(recipe)
        _pull(recipe.name, engine, self.image, say)

        from testcontainers.core.container import DockerContainer

        container: Any = DockerContainer(self.image)
        if image.command:
            container.with_command(list(image.command))
        container.with_envs(**image.environment)
        local = self.host in ("localhost", "127.0.0.1", "::1")
        if local:
            self.host = "127.0.0.1"
        container.ports[f"{image.port}/tcp"] = ("127.0.0.1", self.port) if local else self.port
        self._container = container
        say(f"{recipe.name}: starting a container from {self.image} ...")
        try:
            container.start()
            self._watch()
            self.version = self._ready()
        except Exception as error:
            log = self._log()
            self.stop()
            reason = f"the container from {self.image} did not start: {_first_line(error)}{log}"
            raise NotThisWay(reason, aloud=True) from error
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        self._container.get_wrapped_container().start()
        self._ready()

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()
        self._container.get_wrapped_container().wait(timeout=30)

    def restart(self) -> None:
        self._container.get_wrapped_container().restart(timeout=15)
        self._ready()

    def stop(self) -> None:
        with contextlib.suppress(Exception):  # already gone is as good
            self._container.stop(force=True, delete_volume=True)
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(OSError):
                self._guard.stdin.write(b"-")
                self._guard.stdin.close()
            self._guard.wait(timeout=15)
            self._guard = None

    def _watch(self) -> None:
        self._guard = subprocess.Popen(
            [sys.executable, "-c", _GUARD, self._container.get_wrapped_container().id],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )

    def _ready(self) -> str:
        return probe.wait(self._recipe.ask, self.host, self.port, seconds=90, alive=self._alive)

    def _alive(self) -> bool:
        container = self._container.get_wrapped_container()
        container.reload()
        status: str = container.status
        return status in ("created", "running", "restarting")

    def _log(self) -> str:
        with contextlib.suppress(Exception):
            text: str = self._container.get_wrapped_container().logs(tail=12).decode(errors="replace").strip()
            if text:
                return "\n    " + text.replace("\n", "\n    ")
        return ""


def image_name(recipe: Recipe) -> str:
    """The official image, or the one that `EVENTKIT_TEST_<NAME>_IMAGE` names."""
    return os.environ.get(f"EVENTKIT_TEST_{recipe.name.upper()}_IMAGE") or recipe.image("127.0.0.1", 0).name


def have_image(recipe: Recipe, say: Say) -> None:
    """Make sure that the engine has the image; `NotThisWay` says why not."""
    _pull(recipe.name, _engine(), image_name(recipe), say)


def _engine() -> Any:
    """A client of the Docker engine that answers, or `NotThisWay`."""
    # Read by testcontainers at import and at each start.
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    try:
        from testcontainers.core.docker_client import DockerClient
    except ImportError as error:
        raise NotThisWay(f"testcontainers is not installed ({error}): pip install testcontainers") from error

    def ask() -> Any:
        engine = DockerClient()
        engine.client.ping()
        return engine

    try:
        return _within(5, ask)
    except TimeoutError:
        raise NotThisWay("the Docker engine did not answer within 5 s") from None
    except Exception as error:  # noqa: BLE001  (docker's, requests' and urllib3's: all mean the same)
        raise NotThisWay(f"no Docker engine answers ({_first_line(error)})") from None


def _pull(broker: str, engine: Any, image: str, say: Say) -> None:
    with contextlib.suppress(Exception):
        engine.client.images.get(image)
        return
    say(f"{broker}: pulling the image {image} ...")
    began = time.monotonic()
    try:
        _within(
            600,
            lambda: engine.client.images.pull(image),
            each_10_s=lambda: say(f"{broker}: pulling {image} ... {time.monotonic() - began:.0f} s"),
        )
    except TimeoutError:
        raise NotThisWay(f"the image {image} could not be pulled within 600 s", aloud=True) from None
    except Exception as error:  # noqa: BLE001
        reason = f"the Docker engine answers, but the image {image} cannot be pulled ({_first_line(error)})"
        raise NotThisWay(reason, aloud=True) from None


def _within(seconds: float, ask: Callable[[], T], each_10_s: Callable[[], object] = lambda: None) -> T:
    """The answer of a call that has no time limit of its own."""
    answer: list[T] = []
    failure: list[Exception] = []

    def call() -> None:
        try:
            answer.append(ask())
        except Exception as error:  # noqa: BLE001  (raised below, in the thread that asked)
            failure.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    end = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < end:
        thread.join(timeout=min(10, max(0.01, end - time.monotonic())))
        if thread.is_alive():
            each_10_s()
    if failure:
        raise failure[0]
    if not answer:
        raise TimeoutError
    return answer[0]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
