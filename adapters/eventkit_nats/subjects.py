"""Which subject a message is published to (pure)."""

from __future__ import annotations

import re
from urllib.parse import quote

from eventkit.adapter import Address
from eventkit.errors import InvalidMessage
from eventkit.names import Naming

_PHYSICAL = re.compile(r"[^\s*>.\x00]+(\.[^\s*>.\x00]+)*").fullmatch
_REPLY = re.compile(r"(.+=reply|_INBOX\.[^\s*>]+)").fullmatch
_LONGEST = 200
"""Characters of a type in a subject. It only helps people who watch; the header says it in full."""
_MANY = 10_000


class Subjects:
    def __init__(self, naming: Naming, inbox_prefix: str) -> None:
        self._naming = naming
        self._inboxes = f"{inbox_prefix}."
        self._known: dict[tuple[Address, str], bytes] = {}

    def of(self, address: Address, type_: str) -> bytes:
        """InvalidMessage, if nothing can be published there."""
        key = (address, type_)
        found = self._known.get(key)
        if found is None:
            found = self._make(address, type_).encode()
            if len(self._known) < _MANY:
                self._known[key] = found
        return found

    def readers(self, group: str) -> str:
        """Where those that read a group answer. Under the prefix of inboxes, on which all may publish and listen."""
        return f"{self._inboxes}eventkit.{self._naming.group(group)}"

    def reply(self, name: str) -> str:
        """Where the answer to `reply_to: name` goes. A name with '=' in it was a subject when it arrived."""
        return name.removeprefix("=") if "=" in name else self._naming.channel("reply", name)

    def _make(self, address: Address, type_: str) -> str:
        if address.physical is not None:
            if not _PHYSICAL(address.physical):
                raise InvalidMessage(f"{address.physical!r} is no subject that can be published to")
            return address.physical
        if address.kind == "reply":
            subject = self.reply(address.name)
            # a requester chooses it: it must not become a way into streams or the server's own interface
            if not _PHYSICAL(subject) or not (_REPLY(subject) or subject.startswith(self._inboxes)):
                raise InvalidMessage(f"reply_to {address.name!r} is no address for a reply")
            return subject
        channel = self._naming.channel(address.kind, address.name)
        return f"{channel}.{_token(type_)}" if type_ else channel


def _token(type_: str) -> str:
    safe = quote(type_, safe="!#$&'()+,/:;<=?@[]^_`{|}~.-")
    if safe.startswith(".") or safe.endswith(".") or ".." in safe:
        safe = safe.replace(".", "%2E")
    return safe[:_LONGEST].rstrip(".")
