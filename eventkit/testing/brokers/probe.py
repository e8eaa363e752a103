"""Asks a broker whether it is ready and which version it is, over a plain socket.

Each probe returns the version and raises `NotReady` while the broker does not answer as it should. No client
library is used: the tests of one backend must not need the client of another.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
import time
from collections.abc import Callable

Probe = Callable[[str, int], str]


class NotReady(Exception):
    """The broker does not answer, or not as itself."""


def redis(host: str, port: int) -> str:
    """PING and INFO. A server that asks for a password is ready, but does not tell its version."""
    with _connect(host, port) as line:
        line.sendall(b"PING\r\n")
        answer = _until(line, b"\r\n")
        if answer.startswith((b"-NOAUTH", b"-DENIED")):
            return "unknown (asks for a password)"
        if not answer.startswith(b"+PONG"):
            raise NotReady(f"PING was answered by {_shown(answer)}")
        line.sendall(b"INFO server\r\n")
        found = re.search(rb"redis_version:(\S+)", _until(line, b"redis_git_sha1"))
        return found.group(1).decode() if found else "unknown"


def nats(host: str, port: int) -> str:
    """The INFO line that the server sends first; JetStream must be on."""
    with _connect(host, port) as line:
        greeting = _until(line, b"\r\n")
    if not greeting.startswith(b"INFO "):
        raise NotReady(f"expected INFO, got {_shown(greeting)}")
    about = json.loads(greeting[5:].split(b"\r\n")[0])
    if not about.get("jetstream"):
        raise NotReady("the server runs without JetStream (start it with -js)")
    return str(about.get("version", "unknown"))


def rabbit(host: str, port: int) -> str:
    """The AMQP 0-9-1 handshake: connection.start holds the server's properties."""
    with _connect(host, port) as line:
        line.sendall(b"AMQP\x00\x00\x09\x01")
        head = _exactly(line, 7)
        kind, _, size = struct.unpack(">BHI", head)
        frame = _exactly(line, size) if kind == 1 and size < 65536 else b""
    if frame[:4] != b"\x00\x0a\x00\x0a":
        raise NotReady(f"expected connection.start, got {_shown(head + frame)}")
    at = frame.find(b"\x07versionS")
    if at < 0:
        return "unknown"
    (length,) = struct.unpack_from(">I", frame, at + 9)
    return frame[at + 13 : at + 13 + length].decode()


def kafka(host: str, port: int) -> str:
    """ApiVersions. A Kafka broker does not tell its release, so that the level of its metadata stands for it."""
    with _connect(host, port) as line:
        client = b"eventkit"
        # key 18, version 3: header v2 ends with no tagged fields; then name, version, no tagged fields
        body = struct.pack(">hhih", 18, 3, 1, len(client)) + client + b"\x00"
        body += bytes([len(client) + 1]) + client + b"\x02" + b"1" + b"\x00"
        line.sendall(struct.pack(">i", len(body)) + body)
        (size,) = struct.unpack(">i", _exactly(line, 4))
        if not 6 <= size < 1_000_000:
            raise NotReady(f"ApiVersions was answered by {size} bytes")
        answer = _exactly(line, size)
    correlation, error = struct.unpack_from(">ih", answer)
    if correlation != 1 or error:
        raise NotReady(f"ApiVersions was answered with error {error}")
    # compact string with its length plus one, then min and max as int16
    found = re.search(rb"\x11metadata\.version(..)(..)", answer, re.DOTALL)
    levels = [struct.unpack(">h", found.group(2))[0]] if found else []
    return f"unknown (metadata.version up to {levels[0]})" if levels else "unknown"


def wait(probe: Probe, host: str, port: int, *, seconds: float, alive: Callable[[], bool] = lambda: True) -> str:
    """The version, as soon as the broker answers; `NotReady` after `seconds`, or at once when it has ended."""
    end = time.monotonic() + seconds
    while True:
        try:
            return probe(host, port)
        except (OSError, NotReady, ValueError, struct.error) as error:
            reason = str(error) or type(error).__name__
        if not alive():
            raise NotReady(f"it ended while starting ({reason})")
        if time.monotonic() > end:
            raise NotReady(f"no answer at {host}:{port} within {seconds:g} s ({reason})")
        time.sleep(0.05)


def encrypted(probe: Probe) -> Probe:
    """The same probe for a server that speaks TLS: only the handshake is asked for, the version is not."""

    def handshake(host: str, port: int) -> str:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with _connect(host, port) as line, context.wrap_socket(line):
            return "unknown (TLS)"

    return handshake


def _connect(host: str, port: int) -> socket.socket:
    line = socket.create_connection((host, port), timeout=2)
    if line.getsockname() == line.getpeername():
        # Nobody listens, and the system chose the port itself for our end: a connection to oneself.
        line.close()
        raise NotReady("nobody listens")
    return line


def _until(line: socket.socket, end: bytes) -> bytes:
    got = b""
    while end not in got:
        if len(got) > 1_000_000:
            raise NotReady(f"no {end!r} in the answer")
        piece = line.recv(65536)
        if not piece:
            raise NotReady(f"the connection was closed after {_shown(got)}")
        got += piece
        if got.startswith(b"-") and got.endswith(b"\r\n"):  # a Redis error is complete
            return got
    return got


def _exactly(line: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        piece = line.recv(size - len(got))
        if not piece:
            raise NotReady(f"the connection was closed after {_shown(got)}")
        got += piece
    return got


def _shown(data: bytes) -> str:
    return repr(data[:60]) if data else "nothing"
