"""RabbitMQ: three nodes that share a cookie and a port mapper, and quorum queues of three members."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from eventkit import names
from eventkit.testing.brokers.process import Program
from eventkit.testing.brokers.rabbit import Rabbit as Recipe
from tests.rig.clusters.cluster import ELECTED, Cluster, wait
from tests.rig.work import SERVICE

_SERVERS = 3


class Rabbit(Cluster):
    name = "rabbit cluster"
    broker = "rabbit"
    settings: ClassVar = {"heartbeat": "PT1S"}
    lease = 4.0
    young = 2.0

    @property
    def url(self) -> str:
        return "amqp://guest:guest@" + ",".join(f"127.0.0.1:{port}" for port in self._ports) + "/"

    def _begin(self) -> None:
        recipe = Recipe()
        found = recipe.find()
        self._control = found.path.with_name("rabbitmqctl")
        made: list[tuple[Path, list[Program]]] = []
        for _ in range(_SERVERS):
            folder = self._folder()
            made.append((folder, list(recipe.programs(found, folder, {}, self.say))))
        self._ports = [programs[-1].port for _, programs in made]
        shared = {name: made[0][1][-1].environment[name] for name in ("HOME", "ERL_EPMD_PORT")}
        nodes = [programs[-1].environment["RABBITMQ_NODENAME"] for _, programs in made]
        for place, (folder, programs) in enumerate(made):
            lines = ["cluster_formation.peer_discovery_backend = classic_config"]
            # one node begins, and the others come to it
            lines += [f"cluster_formation.classic_config.nodes.1 = {nodes[0]}"] if place else []
            lines += ["cluster_partition_handling = pause_minority"]
            with (folder / "rabbitmq.conf").open("a") as file:
                file.write("".join(f"{line}\n" for line in (lines if place else lines[1:])))
            node = replace(programs[-1], environment={**programs[-1].environment, **shared})
            self._environment = node.environment
            # the first one's port mapper serves all, and outlives its node
            self._add(nodes[place], folder, *(programs[:-1] if place == 0 else ()), node)
        wait(
            lambda: len(self._ask("cluster_status").get("running_nodes", ())) == _SERVERS, ELECTED, "rabbit: no cluster"
        )

    def leader(self) -> str:
        queue = names.rabbit(self.namespace).group(SERVICE)
        for found in self._queues():
            if found["name"] == queue and found["leader"] in (found["online"] or ()):
                return str(found["leader"])
        raise LookupError(queue)

    def in_step(self) -> bool:
        try:
            if len(self._ask("cluster_status")["running_nodes"]) != _SERVERS:
                return False
            return all(found["leader"] and len(found["online"] or ()) == _SERVERS for found in self._queues())
        except LookupError:
            return False

    def _queues(self) -> list[dict[str, Any]]:
        return list(self._ask("list_queues", "name", "leader", "online"))

    def _ask(self, *words: str) -> Any:
        """From a node that runs."""
        for node, server in self.servers.items():
            if not server.alive:
                continue
            command = [str(self._control), "--silent", "--formatter", "json", "--timeout", "10", "--node", node, *words]
            environment = {
                name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))
            }
            given = {
                name: value
                for name, value in self._environment.items()
                if name in ("HOME", "LANG", "ERL_EPMD_PORT", "ERL_EPMD_ADDRESS", "RABBITMQ_CONF_ENV_FILE")
            }
            try:
                done = subprocess.run(
                    command, capture_output=True, env={**environment, **given}, timeout=30, check=False
                )
            except subprocess.TimeoutExpired:  # it may still be asking one that was just killed
                continue
            if done.returncode == 0:
                return json.loads(done.stdout)
        raise LookupError("no node of RabbitMQ answers")
