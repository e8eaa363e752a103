# ruff: noqa: S603  (what is run is named here, or by the person at the command line)
"""Installs what a broker needs, and leaves no system service running that was not running before."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from eventkit.testing.brokers.errors import NotThisWay
from eventkit.testing.brokers.process import Say, run

_POLICY = Path("/usr/sbin/policy-rc.d")
_packages = threading.Lock()  # one package manager at a time in this process; across processes it locks by itself


def search_path() -> str:
    """The PATH with the system folders in which servers are put, which an ordinary user's PATH often lacks."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def python_packages(broker: str, packages: Sequence[str], *, say: Say) -> None:
    """Into the environment that runs now, with pip, or with uv where the environment has no pip."""
    if importlib.util.find_spec("pip") is not None:
        tool = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    elif uv := shutil.which("uv"):
        tool = [uv, "pip", "install", "--quiet", "--python", sys.executable]
    else:
        raise NotThisWay(f"this Python has neither pip nor uv. Install by hand: {' '.join(packages)}")
    say(f"{broker}: installing {' '.join(packages)} with {'uv' if tool[0] != sys.executable else 'pip'} ...")
    run([*tool, *packages], what=f"{broker}: installing {' '.join(packages)}", seconds=300, say=say)


def system_packages(
    what: str,
    packages: Sequence[str],
    *,
    say: Say,
    otherwise: str,
    service: tuple[str, int] | None = None,
) -> None:
    """Install `packages` for `what` with apt-get, as root or by sudo without a password.

    `otherwise` tells a person what to do where there is none of these. `service` is the name and port of a service
    that the package brings: it is kept from starting.
    """
    if shutil.which("apt-get") is None:
        raise NotThisWay(f"there is no apt-get here: {otherwise}")
    root = _as_root()
    if root is None:
        raise NotThisWay(f"apt-get needs root: run `sudo apt-get install {' '.join(packages)}` once, or {otherwise}")
    apt = [
        *root, "env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "-q", "-y",
        "-o", "DPkg::Lock::Timeout=300",
    ]  # fmt: skip
    names = " ".join(packages)
    install = [*apt, "install", "--no-install-recommends", *packages]
    with _packages:
        name, port = service or ("", None)
        ran = _listens(port)
        with _services_stay_down(root):
            say(f"{what}: installing {names} with apt-get ...")
            try:
                run(install, what=f"{what}: installing {names}", seconds=900, say=say)
            except NotThisWay:
                # No list of packages yet, as in a fresh container, or one so old that its files are gone.
                say(f"{what}: updating the list of packages with apt-get ...")
                run([*apt, "update"], what=f"{what}: updating the list of packages", seconds=300, say=say)
                say(f"{what}: installing {names} with apt-get ...")
                run(install, what=f"{what}: installing {names}", seconds=900, say=say)
        if not ran and _listens(port):
            say(f"{what}: stopping the service {name} that the package started")
            run([*root, "service", name, "stop"], what=f"{what}: stopping {name}", seconds=60, say=say)


def java() -> str | None:
    """Java 17 or newer, or None."""
    home = os.environ.get("JAVA_HOME")
    for path in ([str(Path(home) / "bin")] if home else []) + [search_path()]:
        program = shutil.which("java", path=path)
        if program is None:
            continue
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            answer = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=30, check=False)
            found = re.search(r'version "(\d+)', answer.stderr + answer.stdout)
            if found and int(found.group(1)) >= 17:
                return program
    return None


def maven() -> str | None:
    """Apache Maven, or None."""
    return shutil.which("mvn", path=search_path())


def _as_root() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo is None:
        return None
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        answer = subprocess.run(
            [sudo, "-n", "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False
        )
        if answer.returncode == 0:
            return [sudo, "-n"]
    return None


@contextlib.contextmanager
def _services_stay_down(root: Sequence[str]) -> Iterator[None]:
    """Debian asks this script before a package may start its service; 101 forbids it. One already there is kept."""
    if _POLICY.exists():
        yield
        return
    script = f"printf '#!/bin/sh\\nexit 101\\n' > {_POLICY} && chmod 755 {_POLICY}"
    subprocess.run([*root, "sh", "-c", script], stdin=subprocess.DEVNULL, timeout=30, check=False)
    try:
        yield
    finally:
        subprocess.run([*root, "rm", "-f", str(_POLICY)], stdin=subprocess.DEVNULL, timeout=30, check=False)


def _listens(port: int | None) -> bool:
    """Whether the service's own port answers.

    Not `service NAME status`: that of RabbitMQ runs rabbitmqctl, which leaves an epmd behind.
    """
    if port is None:
        return False
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True
