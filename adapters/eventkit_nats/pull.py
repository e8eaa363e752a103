"""Asking for messages: one endless pull for each source of a group."""

from __future__ import annotations

import re
from typing import Final

from eventkit.adapter import Address
from eventkit_nats.client import Sink
from eventkit_nats.link import Link
from eventkit_nats.topology import Place

LONG: Final = 30.0
"""Seconds that a request waits for messages."""
SHORT: Final = 2.0
"""Seconds that the part of a busy source waits which others may need."""
_HEARTBEAT = 5.0
"""Seconds after which the server says that a waiting request is still known to it."""
_SILENT = 2 * _HEARTBEAT + 2.0
"""Seconds without any sign for a waiting request: it is lost."""
_MANY = 512
_NS = 1_000_000_000
_BEAT = b', "idle_heartbeat": %d' % round(_HEARTBEAT * _NS)
_pending = re.compile(rb"Nats-Pending-Messages: *(\d+)").search


class Pull:
    """The requests that wait on one durable. All their messages come to one subject, so that only sums are known."""

    def __init__(self, link: Link, prefix: str, place: Place, durable: str, address: Address) -> None:
        self.address = address
        self.retry = address.kind == "retry"
        self.place = place
        self.durable = durable
        self.mark = f".{place.stream}.{durable}.".encode()
        """What stands in its acknowledgements, and in no other's."""
        self.requested = 0
        """Messages asked for that have not come."""
        self.busy_until = 0.0
        self.newest = 0
        """The highest sequence in the stream that has come; 0: none yet."""
        self.created = ""
        """When its stream was made: another time is another stream, with other messages under the same sequences."""
        self.made = ""
        """When its durable was made, by us or by another replica."""
        self.doubted = False
        """May it be another by now? Then nothing is asked for."""
        self.floor: int | None = None
        """The sequence up to which the whole group had settled all, when it was looked last. None: not known."""
        self.error: Exception | None = None
        self.sid: int | None = None
        self._link = link
        self._next = f"PUB {prefix}.CONSUMER.MSG.NEXT.{place.stream}.{durable} ".encode()
        self._openings = 0
        self._inbox = b""
        self._requests: dict[int, int] = {}
        self._number = 0
        self._seen = 0.0

    @property
    def open(self) -> bool:
        return self.sid is not None

    def listen(self, sink: Sink, now: float) -> None:
        """Begin anew, on a subject of its own: what older requests still bring must not be counted here."""
        self._openings += 1
        subject = f"{self._link.inbox}.p{id(self):x}.{self._openings}"
        self._inbox = subject.encode()
        self.requested = 0
        self._requests.clear()
        self._seen = now
        self.sid = self._link.subscribe(f"{subject}.*", sink)

    def leave(self) -> int | None:
        """Ask for no more. What is on its way comes still, until the link forgets the returned number."""
        sid, self.sid = self.sid, None
        self.requested = 0
        self._requests.clear()
        if sid is not None:
            self._link.unsubscribe(sid)
        return sid

    def lost(self) -> None:
        """The connection is gone, and what was asked for with it."""
        if self.sid is not None:
            self._link.forget(self.sid)
        self.sid = None
        self.requested = 0
        self._requests.clear()

    def ask(self, batch: int, expires: float, now: float) -> None:
        if not self.requested:
            self._seen = now
            self._requests.clear()
        self._number += 1
        self._requests[self._number] = batch
        if len(self._requests) > _MANY:  # the oldest is filled: nothing is said of that
            del self._requests[next(iter(self._requests))]
        self.requested += batch
        beat = _BEAT if expires > 2 * _HEARTBEAT else b""
        body = b'{"batch": %d, "expires": %d%b}' % (batch, round(expires * _NS), beat)
        self._link.write(b"%b%b.%d %d\r\n%b\r\n" % (self._next, self._inbox, self._number, len(body), body))

    def came(self, now: float) -> None:
        """A message: one less to come."""
        self._seen = now
        if self.requested:
            self.requested -= 1

    def status(self, subject: bytes, headers: bytes, now: float) -> str | None:
        """What the server says of a request. None: all is well; else why this source must begin anew."""
        self._seen = now
        code = headers[9:12]
        if code == b"100":
            return None
        if code in (b"408", b"404"):
            number = int(subject.rpartition(b".")[2])
            asked = self._requests.pop(number, 0)
            left = _pending(headers)
            self.requested = max(0, self.requested - (min(asked, int(left[1])) if left else asked))
            return None
        return headers[9:].partition(b"\r\n")[0].decode(errors="replace")

    def silent(self, now: float) -> bool:
        """Should there have been a sign of life?"""
        return bool(self.requested) and now - self._seen > _SILENT
