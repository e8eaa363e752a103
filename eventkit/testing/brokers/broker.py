"""A broker that tests can use."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, Self

How = Literal["environment", "container", "installed", "just installed"]


class Running(Protocol):
    """What runs a broker: a local server or a container."""

    def start(self) -> None:
        """Start on the same address and data as before; returns when it answers."""

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL). Data and address are kept."""

    def restart(self) -> None:
        """Shut down in order, then start."""

    def stop(self) -> None:
        """End it and remove its data. May be called twice."""


@dataclass
class Broker:
    """A running broker: `url` is what goes into `EVENTKIT_URL`.

    `stop()` it, or use it as a context manager; at the end of the process it is stopped in any case.
    A broker that came from the environment is somebody else's: `stop()` leaves it alone, and it cannot be
    killed or restarted.
    """

    name: str
    url: str
    version: str
    how: How
    _running: Running | None = field(default=None, repr=False)

    @property
    def ours(self) -> bool:
        """Whether it was started here, so that a test may kill and restart it."""
        return self._running is not None

    def start(self) -> None:
        """Start it again after `kill()`, on the same address and data; returns when it answers."""
        self._own("start").start()

    def kill(self) -> None:
        """End it at once, as a crash would. Its address and what is on disk are kept."""
        self._own("kill").kill()

    def restart(self) -> None:
        """Shut it down in order and start it again on the same address and data."""
        self._own("restart").restart()

    def stop(self) -> None:
        """End it and remove its data."""
        if self._running is not None:
            self._running.stop()

    def _own(self, verb: str) -> Running:
        if self._running is None:
            raise RuntimeError(
                f"cannot {verb} the {self.name} broker at {self.url}: it came from the environment and is not ours. "
                f"Unset EVENTKIT_TEST_{self.name.upper()}_URL to have one started for this test."
            )
        return self._running

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __str__(self) -> str:
        return f"{self.name} {self.version} at {self.url} ({self.how})"
