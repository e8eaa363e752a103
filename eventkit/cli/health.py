"""`eventkit health`: asks a process that was started with --health-port, and says it with an exit code."""

from __future__ import annotations

import http.client
import json
from typing import Annotated, Any, Optional

import typer

from eventkit.cli.broker import Json, environment
from eventkit.cli.ending import FAILED, fail
from eventkit.cli.table import printable
from eventkit.probes import Probes

_PATIENCE = 5.0
"""Seconds to answer."""


Port = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        min=0,
        max=65535,
        help="Tell liveness and readiness over HTTP: /health/live, /health/ready. 0: any free port. "
        "Default: EVENTKIT_HEALTH_PORT, else do not.",
    ),
]
Host = Annotated[
    str, typer.Option(help="The address to tell health at; 0.0.0.0 for those outside of this machine or container.")
]


def probes(port: int | None, host: str) -> Probes | None:
    """What `eventkit run` tells its health by."""
    return None if port is None else Probes(port, host)


def health(
    port: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, max=65535, help="That of `eventkit run --health-port`. Default: EVENTKIT_HEALTH_PORT."),
    ] = None,
    host: Annotated[str, typer.Option(help="Where it runs.")] = "127.0.0.1",
    live: Annotated[
        bool, typer.Option("--live", help="Ask whether it lives: it does while its broker is away.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask a running service how it is: exit code 0 when it is ready, else 1, with the reasons.

    Ready: its broker is there and all its groups read. For a container's own health check, or at the prompt.
    """
    port = port or _port_of_environment()
    try:
        ok, said = _ask(host, port, "/health/live" if live else "/health/ready")
    except (OSError, http.client.HTTPException, ValueError) as error:
        fail(f"nothing at {host}:{port} tells its health ({error}): was it started with --health-port {port}?", FAILED)
    typer.echo(json.dumps(said) if as_json else _as_text(said))
    if not ok:
        raise typer.Exit(FAILED)


def _port_of_environment() -> int:
    port = environment().health_port
    if not port:
        fail("say at which port: --port, or EVENTKIT_HEALTH_PORT, as for `eventkit run`")
    return port


def _ask(host: str, port: int, path: str) -> tuple[bool, dict[str, Any]]:
    connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        said = json.loads(response.read(1_000_000))
        if response.status not in (200, 503) or not isinstance(said, dict):
            raise ValueError(f"it answers with status {response.status}")
        return response.status == 200, said
    finally:
        connection.close()


def _as_text(said: dict[str, Any]) -> str:
    lines = [str(said.get("status", "no status"))]
    if "broker" in said:
        lines.append(f"the broker cannot be reached: {said['broker']}")
    errors = said.get("errors")
    if isinstance(errors, dict):
        lines += [f"{group} does not consume: {error}" for group, error in errors.items()]
    return "\n".join(printable(line) for line in lines)
