"""Connecting as a FastStream `NatsBroker` does: its servers, TLS and credentials."""

from __future__ import annotations

from typing import Any

from faststream.nats.security import parse_security
from nats.aio.client import Client
from pydantic import SecretStr

from eventkit.adopting import BrokerObject, look
from eventkit_nats.settings import NatsSettings, Target


async def adopted(broker: BrokerObject, settings: NatsSettings, name: str) -> Target:
    security = getattr(broker, "specification").security  # noqa: B009 all of FastStream's brokers have it
    return await look(broker, lambda client: _Target(client, security, settings, name))


class _Target(Target):
    """Made of the broker object's client, once that is connected, and of what its specification says of security."""

    def __init__(self, client: Client, security: Any, settings: NatsSettings, name: str) -> None:
        super().__init__(SecretStr(",".join(server.geturl() for server in client.servers)), settings, name)
        said = {option: client.options.get(option) for option in ("user", "password", "token")}
        said |= parse_security(security)
        self._said = {option: value for option, value in said.items() if value is not None}
        self.secure = bool(self._said.get("tls")) or any(server.startswith("tls://") for server in self.servers)

    def options(self) -> dict[str, Any]:
        by_url: dict[str, Any] = {}
        if self._user is not None:
            named = self._password is not None
            by_url = {"user": self._user, "password": self._password} if named else {"token": self._user}
        return {"name": self._name, "tls": None, "tls_handshake_first": False, **by_url, **self._said}
