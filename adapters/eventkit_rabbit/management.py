"""The management API: the only way to see which queues there are, and what they are bound to."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import urllib.error
import urllib.request
from typing import Any, cast
from urllib.parse import quote

from yarl import URL

from eventkit_rabbit.settings import RabbitSettings
from eventkit_rabbit.target import Target, tls_context

_WAIT = 10.0
"""Seconds for one answer."""


class Management:
    """Asks over HTTP, as the user that the URL names, else as the broker's."""

    def __init__(self, url: str, broker: Target, settings: RabbitSettings) -> None:
        parsed = URL(url)
        user, password = (parsed.user, parsed.password) if parsed.user else (broker.url.user, broker.url.password)
        said = base64.b64encode(f"{user or 'guest'}:{password or 'guest'}".encode()).decode()
        self._headers = {"Authorization": f"Basic {said}", "Accept": "application/json"}
        self._url = parsed.with_user(None)
        self._vhost = quote(broker.url.path[1:] or "/", safe="")
        self._context: ssl.SSLContext | None = tls_context(settings) if parsed.scheme == "https" else None

    async def queues(self) -> list[str]:
        """Of the virtual host."""
        return [queue["name"] for queue in await self._get(f"queues/{self._vhost}", "name")]

    async def bindings(self) -> list[tuple[str, str]]:
        """The exchanges and the queues that are bound to them."""
        found = await self._get(f"bindings/{self._vhost}", "source,destination,destination_type")
        return [(one["source"], one["destination"]) for one in found if one["destination_type"] == "queue"]

    async def nodes(self) -> int:
        """How many the cluster has, those included that are down. RabbitMQ tells it to monitors and administrators."""
        return len(await self._get("nodes", "name"))

    async def _get(self, what: str, columns: str) -> list[dict[str, Any]]:
        url = f"{str(self._url).rstrip('/')}/api/{what}?columns={columns}&disable_stats=true"
        # http or https: the settings take no other
        request = urllib.request.Request(url, headers=self._headers)  # noqa: S310
        try:
            return await asyncio.to_thread(self._ask, request)
        except (OSError, ValueError) as error:  # urllib's are OSErrors
            said = f"{error.code} {error.reason}" if isinstance(error, urllib.error.HTTPError) else str(error)
            raise ConnectionError(
                f"RabbitMQ's management API at {self._url} (EVENTKIT_RABBIT__MANAGEMENT) cannot be asked: {said}"
            ) from error

    def _ask(self, request: urllib.request.Request) -> list[dict[str, Any]]:
        with urllib.request.urlopen(request, timeout=_WAIT, context=self._context) as answer:  # noqa: S310
            return cast("list[dict[str, Any]]", json.load(answer))
