"""What has to be known of a broker to provide it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from eventkit.testing.brokers.process import Program, Say

Settings = Mapping[str, str | None]
"""The server's own settings by their own names; None leaves the server's default where we would set another."""


@dataclass(frozen=True)
class Found:
    """A server on this machine: the program or folder it is started from, and its version where that tells it."""

    path: Path
    version: str | None = None


@dataclass(frozen=True)
class Image:
    """A container image and how to run it."""

    name: str
    port: int
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class Recipe(Protocol):
    """One broker: how to find, install and start it, and how to ask it."""

    name: str

    def ask(self, host: str, port: int) -> str:
        """The version of what listens there; `NotReady` if it is not this broker, or not yet."""
        ...

    def url(self, host: str, port: int) -> str:
        """What goes into `EVENTKIT_URL`."""
        ...

    def image(self, host: str, port: int) -> Image:
        """The official image; clients will reach it at `host:port`."""
        ...

    def find(self) -> Found:
        """The server installed here; `NotThisWay` says what is missing."""
        ...

    def install(self, say: Say) -> None:
        """Install it, so that `find` finds it; `NotThisWay` says why not."""
        ...

    def programs(self, found: Found, folder: Path, settings: Settings, say: Say) -> Sequence[Program]:
        """What to start, the server itself last. `folder` is new and for this server alone."""
        ...


def merged(ours: Mapping[str, str], theirs: Settings) -> dict[str, str]:
    """Our settings with the caller's on top."""
    return {key: value for key, value in {**ours, **theirs}.items() if value is not None}
