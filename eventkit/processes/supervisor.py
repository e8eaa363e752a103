"""The supervisor: keeps several processes of the same services running, and drains them at the end."""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from eventkit.processes.worker import Worker

log = logging.getLogger("eventkit")

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0
_STEADY = 60.0
"""Seconds after which a worker counts as one that works, so that its end is not a repetition."""


class _Slot:
    """The place of one worker: who is in it, and when the next one begins."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.worker: Worker | None = None
        self.due: float | None = None
        """By time.monotonic(); None: nobody is to be started."""
        self.failures = 0

    def delay(self) -> float:
        """Seconds until the next one is started; longer each time in a row."""
        return min(_FIRST_DELAY * 2.0 ** (self.failures - 1), _LONGEST_DELAY)


class Supervisor:
    """`run()` returns when it was told to stop, by SIGTERM or SIGINT, and all workers have ended.

    The first worker starts alone: what is wrong with a setting or the broker is said once. If it ends before it is
    ready, so does the supervisor, with its exit code. From then on a worker that ends is started again, by and by.
    """

    def __init__(self, count: int, start: Callable[[int, bool], Worker]) -> None:
        """`start`: makes worker number so-and-so, which shows what it listens to or not."""
        self._start = start
        self._slots = [_Slot(number) for number in range(1, count + 1)]
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._up = False
        self._stopping = False
        self._code = 0

    def run(self) -> int:
        """The exit code: 0 when all drained."""
        with _woken(self._signals) as alarm:
            self._selector.register(alarm, selectors.EVENT_READ)
            try:
                self._fill(self._slots[0])
                while any(slot.worker or slot.due is not None for slot in self._slots):
                    for key, _ in self._selector.select(self._patience()):
                        self._hear(key.fileobj, alarm)
                    self._obey()
                    self._look_after()
            finally:
                for slot in self._slots:
                    if slot.worker is not None:
                        slot.worker.close()
                self._selector.close()
        return self._code

    def _patience(self) -> float | None:
        dues = [slot.due for slot in self._slots if slot.due is not None]
        return max(min(dues) - time.monotonic(), 0.0) if dues else None

    def _hear(self, speaker: object, alarm: socket.socket) -> None:
        if speaker is alarm:
            alarm.recv(64)
        elif isinstance(speaker, Worker) and not speaker.listen():
            self._selector.unregister(speaker)  # it is reaped when the system says so

    def _obey(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            workers = [slot.worker for slot in self._slots if slot.worker is not None]
            if self._stopping:
                self._code = 128 + number
                for worker in workers:
                    worker.kill()
                continue
            self._stopping = True
            name = signal.Signals(number).name
            log.info("%s came: %d workers finish what runs (a second one ends them at once)", name, len(workers))
            for slot in self._slots:
                slot.due = None
            for worker in workers:
                worker.drain()

    def _look_after(self) -> None:
        for slot in self._slots:
            if slot.worker is not None and slot.worker.poll() is not None:
                self._ended(slot, slot.worker)
            elif slot.due is not None and slot.due <= time.monotonic():
                self._fill(slot)
        if not self._up and (first := self._slots[0].worker) is not None and first.ready_at is not None:
            self._up = True
            if not self._stopping:
                for slot in self._slots[1:]:
                    self._fill(slot)

    def _fill(self, slot: _Slot) -> None:
        slot.due = None
        try:
            slot.worker = self._start(slot.number, not self._up)
        except OSError as error:  # no memory, or too many processes: that may pass
            if not self._up:
                raise
            self._again(slot, f"worker {slot.number} cannot be started ({error}); the next try is in %g s")
            return
        self._selector.register(slot.worker, selectors.EVENT_READ)

    def _ended(self, slot: _Slot, worker: Worker) -> None:
        worker.listen()
        if worker.fileno() in self._selector.get_map():
            self._selector.unregister(worker)
        worker.close()
        slot.worker = None
        code = worker.poll() or 0
        if self._stopping:
            self._code = self._code or code
            if code:
                log.warning("worker %d (pid %d) %s while it was to drain", slot.number, worker.pid, worker.how())
            return
        if not self._up and worker.ready_at is None:
            self._code = code or 1  # it has said why
            return
        if worker.ready_at is not None and time.monotonic() - worker.ready_at >= _STEADY:
            slot.failures = 0
        self._again(
            slot,
            f"worker {slot.number} (pid {worker.pid}) {worker.how()}; it is started again in %g s; "
            "what it had not finished is delivered again",
        )

    def _again(self, slot: _Slot, said: str) -> None:
        """Put somebody into this place a little later; `said` has room for the seconds."""
        slot.failures += 1
        slot.due = time.monotonic() + slot.delay()
        log.error(said, slot.delay())


@contextmanager
def _woken(told: list[int]) -> Iterator[socket.socket]:
    """A socket that is readable after each signal. Those that end a program are put into `told`."""
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        reader.setblocking(False)

        def heard(number: int, frame: FrameType | None) -> None:
            if number != signal.SIGCHLD:
                told.append(number)

        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        numbers: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
        before = {number: signal.signal(number, heard) for number in numbers}
        try:
            yield reader
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
