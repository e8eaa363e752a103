"""Breakers: the circuits of a group's handlers in this process, closed or open."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime

from eventkit.circuit import Circuit
from eventkit.clock import Clock, Timer
from eventkit.declaring import Handler
from eventkit.handling import Entry
from eventkit.lanes import Gate

log = logging.getLogger("eventkit")

_LATE = 60.0
"""Seconds after which another probe is let in beside one that has not ended: its handler may hang."""


class Breaker:
    """Told of each outcome; asked before each attempt."""

    def __init__(self, circuit: Circuit, handler: str, group: str, clock: Clock) -> None:
        self._circuit = circuit
        self._handler = handler
        self._group = group
        self._clock = clock
        self._failed: dict[str, datetime] = {}
        """The messages that failed since the last success, the oldest first, each with the time of its last failure."""
        self._gate = Gate()
        self._since: datetime | None = None
        self._until = clock.now()
        """For people: a clock may be set while it rests, so that what counts is the timer."""
        self._resting = False
        self._timer: Timer | None = None
        self._probe: object = None

    @property
    def state(self) -> str | None:
        """Since when it is open, for people; None: it is closed."""
        if self._since is None:
            return None
        what = "a probe runs" if self._probe is not None else f"next probe at {self._until:%H:%M:%S} UTC"
        return f"open since {self._since:%Y-%m-%d %H:%M:%S} UTC, {what}"

    def asks(self, token: object) -> Gate | None:
        """May this message be tried? What it has to wait for, if not."""
        if self._since is None or self._probe is token:
            return None
        if self._probe is None and not self._resting:
            self._probe = token
            log.info("%s: the circuit of %s is open: one message is tried, as a probe", self._group, self._handler)
            self._call_later(max(self._circuit.pause.total_seconds(), _LATE), lambda: self.dropped(token))
            return None
        return self._gate

    def succeeded(self) -> None:
        """The handler answered."""
        if self._failed:
            self._failed.clear()
        if self._since is not None:
            took = self._clock.now() - self._since
            log.warning(
                "%s: the circuit of %s is closed after %.3g s: its messages are tried again",
                *(self._group, self._handler, took.total_seconds()),
            )
            self._since = self._probe = None
            if self._timer is not None:
                self._timer.cancel()
            self.let_in()

    def failed(self, token: object, id: str) -> float | None:
        """An attempt failed. Seconds to wait where that counts as none; None: it counts."""
        now = self._clock.now()
        if self._since is not None:
            if self._probe is token:
                log.info("%s: the probe of %s failed: its circuit stays open", self._group, self._handler)
                self._rest(now)
            pause = self._circuit.pause.total_seconds()
            return min(max((self._until - now).total_seconds(), 0.001), pause)
        self._failed.pop(id, None)
        self._failed[id] = now
        oldest = now - self._circuit.within
        while (first := next(iter(self._failed))) and self._failed[first] < oldest:
            del self._failed[first]
        if len(self._failed) < self._circuit.failures:
            return None
        log.warning(
            "%s: the circuit of %s is open: %d messages failed within %g s and none succeeded; all wait, untried, "
            "and one is tried in %g s",
            *(self._group, self._handler, len(self._failed), self._circuit.within.total_seconds()),
            self._circuit.pause.total_seconds(),
        )
        self._failed.clear()
        self._since = now
        self._rest(now)
        return None

    def dropped(self, token: object) -> None:
        """This message comes to no attempt: if it was the probe, another one is."""
        if self._probe is token:
            self._probe = None
            self.let_in()

    def _rest(self, now: datetime) -> None:
        self._probe = None
        self._resting = True
        self._until = now + self._circuit.pause
        self._call_later(self._circuit.pause.total_seconds(), self._rested)

    def _call_later(self, delay: float, function: Callable[[], object]) -> None:
        """In the place of what was to be called before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(delay, function)

    def _rested(self) -> None:
        self._resting = False
        self.let_in()

    def let_in(self) -> None:
        """Have all that wait ask again: the first becomes the probe."""
        gate, self._gate = self._gate, Gate()
        gate.open()


class Breakers:
    """Those of one group: of the handlers that have a circuit, and were called."""

    def __init__(self, group: str, clock: Clock) -> None:
        self.stopping = False
        """From now on what waits for one is given back: its time may be long after the stop's."""
        self._group = group
        self._clock = clock
        self._breakers: dict[Handler, Breaker] = {}

    def of(self, entry: Entry) -> Breaker:
        """Of a handler that has a circuit."""
        found = self._breakers.get(entry.handler)
        if found is None:
            assert entry.circuit is not None
            found = self._breakers[entry.handler] = Breaker(entry.circuit, entry.name, self._group, self._clock)
        return found

    def succeeded(self, entry: Entry) -> None:
        """This handler answered."""
        if entry.circuit is not None:
            self.of(entry).succeeded()

    def dropped(self, entry: Entry, token: object) -> None:
        """This message of this handler comes to no attempt."""
        if entry.circuit is not None:
            self.of(entry).dropped(token)

    def forget(self, token: object) -> None:
        """This message is given back, whosever it was."""
        for breaker in self._breakers.values():
            breaker.dropped(token)

    def stop(self) -> None:
        self.stopping = True
        for breaker in self._breakers.values():
            breaker.let_in()

    @property
    def resting(self) -> Mapping[str, str]:
        """The handlers that rest, and since when."""
        found = {handler.name: breaker.state for handler, breaker in self._breakers.items()}
        return {name: state for name, state in found.items() if state is not None}

    @property
    def open(self) -> Mapping[str, bool]:
        """By handler: is it open?"""
        return {handler.name: breaker.state is not None for handler, breaker in self._breakers.items()}
