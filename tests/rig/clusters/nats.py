"""NATS: three servers with routes, and streams of three replicas."""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar

from eventkit import names
from eventkit.testing.brokers.nats import Nats as Recipe
from eventkit.testing.brokers.process import Program, free_port
from tests.rig.clusters.cluster import ELECTED, Cluster, wait
from tests.rig.work import TOPIC

_SERVERS = 3


class Nats(Cluster):
    name = "nats cluster"
    broker = "nats"
    settings: ClassVar = {"lease": "PT2S", "replicas": "3"}

    @property
    def url(self) -> str:
        return ",".join(f"nats://127.0.0.1:{port}" for port in self._ports)

    def _begin(self) -> None:
        recipe, routes = Recipe(), [free_port() for _ in range(_SERVERS)]
        all_ = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in routes)
        self._ports: list[int] = []
        for port in routes:
            folder = self._folder()
            joined = f'{{ name: "rig", listen: "127.0.0.1:{port}", routes: [{all_}] }}'
            (program,) = recipe.programs(recipe.find(), folder, {"cluster": joined, "max_payload": "1MB"}, self.say)
            assert isinstance(program, Program)
            self._ports.append(program.port)
            self._add(f"eventkit-{program.port}", folder, program)
        wait(self._has_meta_leader, ELECTED, "nats: no cluster")

    def leader(self) -> str:
        stream = names.nats(self.namespace).channel("topic", TOPIC)
        for found in self._streams():
            if found["config"]["name"] == stream and (led := found["cluster"].get("leader")):
                return str(led)
        raise LookupError(stream)

    def in_step(self) -> bool:
        try:
            streams = self._streams()
        except LookupError:
            return False
        return all(
            found["cluster"].get("leader")
            and len(found["cluster"].get("replicas", ())) == found["config"]["num_replicas"] - 1
            and all(one["current"] and not one.get("offline") for one in found["cluster"].get("replicas", ()))
            for found in streams
        )

    def _has_meta_leader(self) -> bool:
        try:
            self._ask("$JS.API.INFO")
        except LookupError:
            return False
        return True

    def _streams(self) -> list[dict[str, Any]]:
        """All, as their leaders see them: one that says nothing is missing."""
        names_: list[str] = self._ask("$JS.API.STREAM.NAMES").get("streams") or []
        return [self._ask(f"$JS.API.STREAM.INFO.{name}") for name in names_]

    def _ask(self, subject: str) -> dict[str, Any]:
        import nats
        import nats.errors

        async def ask() -> dict[str, Any]:
            async def quiet(_: Exception) -> None: ...

            servers = self.url.split(",")
            client = await nats.connect(servers, error_cb=quiet, max_reconnect_attempts=1, connect_timeout=1)
            try:
                answer = json.loads((await client.request(subject, b"", timeout=2)).data)
            finally:
                await client.close()
            if "error" in answer:
                raise LookupError(answer["error"]["description"])
            return dict(answer)

        try:
            return asyncio.run(ask())
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LookupError(str(error)) from error
