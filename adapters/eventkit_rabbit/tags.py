"""Which deliveries of one channel are still ours, and how they are settled in the fewest frames (pure)."""

from __future__ import annotations

from eventkit_rabbit import write


class Tags:
    """The delivery tags of one channel: 1, 2, 3 and so on. Each is settled at most once.

    Those finished without a gap are acknowledged in one frame, `multiple` up to the last; those above a gap singly.
    A frame with `multiple` names a tag that no frame has named before: the broker closes the channel otherwise.
    """

    def __init__(self) -> None:
        self._low = 1
        self.top = 0
        """The last that was delivered."""
        self._busy: set[int] = set()
        self._done: set[int] = set()
        self._back: set[int] = set()
        self._settled: set[int] = set()

    def arrived(self, tag: int) -> None:
        self.top = tag

    def holds(self, tag: int) -> bool:
        """Is it delivered and not yet settled, nor being moved?"""
        return (
            self._low <= tag <= self.top
            and tag not in self._done
            and tag not in self._settled
            and tag not in self._busy
            and tag not in self._back
        )

    def begin(self, tag: int) -> None:
        """It is being moved: no settlement may come between."""
        self._busy.add(tag)

    def abandon(self, tag: int) -> None:
        """It was not moved: it may be settled again."""
        self._busy.discard(tag)

    def done(self, tag: int) -> None:
        self._busy.discard(tag)
        self._done.add(tag)

    def release(self, tag: int) -> None:
        self._back.add(tag)

    @property
    def unsettled(self) -> int:
        """How many are delivered and neither finished nor released."""
        return self.top - self._low + 1 - len(self._settled) - len(self._done) - len(self._back)

    def unwritten(self, after: int) -> int:
        """How many of those after this tag are delivered, and no frame has named them."""
        return self.top - max(self._low - 1, after) - sum(tag > after for tag in self._settled)

    @property
    def waiting(self) -> int:
        """How many are finished or released but not yet written."""
        return len(self._done) + len(self._back)

    def write(self, channel: int, *, back: bool = True) -> list[bytes]:
        """The frames that settle all that waits. `back`: also what was released."""
        done, settled = self._done, self._settled
        out: list[bytes] = []
        if back:
            out += [write.nack(channel, tag) for tag in sorted(self._back)]
            settled |= self._back
            self._back.clear()
        low, last = self._low, 0
        while True:
            if low in done:
                done.remove(low)
                last = low
            elif low in settled:
                settled.remove(low)
            else:
                break
            low += 1
        self._low = low
        if last:
            out.append(write.ack(channel, last, multiple=True))
        if done:
            out += [write.ack(channel, tag, multiple=False) for tag in done]
            settled |= done
            done.clear()
        return out
