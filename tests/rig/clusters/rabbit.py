"""RabbitMQ: three nodes that share a cookie and a port mapper, and quorum queues of three members."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from eventkit import names
from eventkit.testing.brokers.process import Program, free_port
from eventkit.testing.brokers.rabbit import Rabbit as Recipe
from tests.rig.clusters.cluster import ELECTED, Cluster, wait
from tests.rig.work import SERVICE

_SERVERS = 3
_HANDED_OVER_MS = 10_000
"""After so long RabbitMQ itself hands over again what a delay queue let go and the group's queue has not confirmed, as
when that one's leader died. Its default is three minutes, in which nothing comes out of the delay queue."""
_ANSWERS = 5.0
"""Seconds that a node has to answer before another is asked."""


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
        made: list[tuple[Path, list[Program]]] = []
        pages = [free_port() for _ in range(_SERVERS)]
        for page in pages:
            folder = self._folder()
            settings = {
                "management.tcp.port": str(page),
                "management.tcp.ip": "127.0.0.1",
                "collect_statistics_interval": "60000",
            }
            made.append((folder, list(recipe.programs(found, folder, settings, self.say))))
        self._ports = [programs[-1].port for _, programs in made]
        shared = {name: made[0][1][-1].environment[name] for name in ("HOME", "ERL_EPMD_PORT")}
        nodes = [programs[-1].environment["RABBITMQ_NODENAME"] for _, programs in made]
        self._pages = dict(zip(nodes, pages, strict=True))
        for place, (folder, programs) in enumerate(made):
            lines = ["cluster_formation.peer_discovery_backend = classic_config"]
            # one node begins, and the others come to it
            lines += [f"cluster_formation.classic_config.nodes.1 = {nodes[0]}"] if place else []
            lines += ["cluster_partition_handling = pause_minority"]
            with (folder / "rabbitmq.conf").open("a") as file:
                file.write("".join(f"{line}\n" for line in (lines if place else lines[1:])))
            (folder / "advanced.config").write_text(
                f"[{{rabbit, [{{dead_letter_worker_publisher_confirm_timeout, {_HANDED_OVER_MS}}}]}}].\n"
            )
            node = replace(programs[-1], environment={**programs[-1].environment, **shared})
            # the first one's port mapper serves all, and outlives its node
            self._add(nodes[place], folder, *(programs[:-1] if place == 0 else ()), node)
        wait(self._formed, ELECTED, "rabbit: no cluster")

    def leader(self) -> str:
        queue = names.rabbit(self.namespace).group(SERVICE)
        for found in self._queues():
            if found["name"] == queue and found["leader"] in found["online"]:
                return str(found["leader"])
        raise LookupError(queue)

    def in_step(self) -> bool:
        try:
            if not all(node["running"] for node in self._nodes()):
                return False
            return all(found["leader"] and len(found["online"]) == _SERVERS for found in self._queues())
        except LookupError:
            return False

    def _formed(self) -> bool:
        return sum(node["running"] for node in self._nodes()) == _SERVERS

    def _nodes(self) -> list[dict[str, Any]]:
        return self._ask("nodes?columns=name,running")

    def _queues(self) -> list[dict[str, Any]]:
        """Those that say who leads them."""
        found = self._ask("queues/%2F?columns=name,leader,online")
        return [{"leader": "", "online": [], **queue} for queue in found]

    def _ask(self, what: str) -> list[dict[str, Any]]:
        """The management API of a node that runs: it is there already, where each `rabbitmqctl` starts an Erlang of its
        own."""
        reasons = []
        for node, server in self.servers.items():
            if not server.alive:
                continue
            request = urllib.request.Request(f"http://127.0.0.1:{self._pages[node]}/api/{what}")
            request.add_header("Authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=")  # guest:guest
            try:
                with urllib.request.urlopen(request, timeout=_ANSWERS) as answer:
                    return list(json.load(answer))
            except (OSError, ValueError) as error:  # it may itself be waiting for one that was just killed
                reasons.append(f"{node}: {error}")
        raise LookupError(f"no node of RabbitMQ answers: {'; '.join(reasons)}")
