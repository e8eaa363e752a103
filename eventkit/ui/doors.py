"""Who may come in: by which names, with which token, and from where something may be changed."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from eventkit.errors import SettingsError

SHORTEST = 16
"""Characters of a token."""


class Doors:
    """What is checked of each request, for a page that is served at one address of this machine."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        *,
        token: str | None = None,
        names: Sequence[str] = (),
        read_only: bool = False,
    ) -> None:
        """`host`: where it listens. `token`: None makes one where others can reach it, and asks for none on loopback.
        `names`: further names by which it may be asked. `read_only`: nothing may be changed."""
        if token is not None and len(token) < SHORTEST:
            raise SettingsError(f"the token is too short to keep anyone out: at least {SHORTEST} characters")
        self.host = host
        self.read_only = read_only
        self.token = token if token is not None or is_loopback(host) else secrets.token_urlsafe(24)
        """None: none is asked for."""
        own = [host, *names]
        if not is_loopback(host):
            own += [socket.gethostname(), socket.getfqdn()]
        self._names = frozenset(_plain(name) for name in own)
        self._pass = None if self.token is None else hmac.new(self.token.encode(), b"page", hashlib.sha256).hexdigest()

    def knows(self, host: str) -> bool:
        """Is this a Host that we are asked by? A name that anyone can point here is not: so a page of elsewhere
        cannot have the browser take it for ours (DNS rebinding). Addresses cannot be pointed anywhere."""
        name = _plain(_name_of(host))
        return bool(name) and (name in self._names or name == "localhost" or _is_address(name))

    def lets_in(self, shown: str | None) -> bool:
        """Is this the pass that `admit` gave?"""
        return self._pass is None or (shown is not None and hmac.compare_digest(shown.encode(), self._pass.encode()))

    def admit(self, token: str) -> str | None:
        """The pass for who says this token. None: it is another one."""
        if self.token is None or not hmac.compare_digest(token.encode(), self.token.encode()):
            return None
        return self._pass


def is_loopback(host: str) -> bool:
    """Is it for this machine alone?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def same_origin(origin: str | None, host: str) -> bool:
    """Did a page of our own ask? A browser says the origin with all that may change something."""
    if not origin:
        return False
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _name_of(host: str) -> str:
    """Without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _plain(name: str) -> str:
    return name.lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
