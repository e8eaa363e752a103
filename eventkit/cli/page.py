"""`eventkit docs build | serve | map`: the page of services, and their map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any, Optional, TypeVar

import typer

from eventkit.asyncapi.chart import chart
from eventkit.asyncapi.d2 import to_d2, to_svg
from eventkit.asyncapi.document import document
from eventkit.asyncapi.mermaid import to_mermaid
from eventkit.asyncapi.pages import page
from eventkit.asyncapi.texts import to_json, to_yaml
from eventkit.cli.ending import fail
from eventkit.cli.named import Services, load
from eventkit.errors import EventkitError

T = TypeVar("T")
_FORMATS = ("svg", "d2", "mermaid")

Broker = Annotated[Optional[str], typer.Option(help="Adds the servers and bindings of this broker.")]  # noqa: UP045
Url = Annotated[Optional[str], typer.Option(help="Where the broker is. No secret in it gets out.")]  # noqa: UP045
Namespace = Annotated[str, typer.Option(help="What EVENTKIT_NAMESPACE is when they run.")]
Title = Annotated[Optional[str], typer.Option(help="By default the services' names.")]  # noqa: UP045
Release = Annotated[str, typer.Option(help="The version of their interface.")]


def add(app: typer.Typer) -> None:
    """Mount the three commands."""
    for command in (build, serve, map_):
        app.command("map" if command is map_ else None)(command)


def build(
    services: Services,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder.")] = Path("site"),
    broker: Broker = None,
    url: Url = None,
    namespace: Namespace = "",
    title: Title = None,
    release: Release = "1.0.0",
) -> None:
    """Write the page into a folder: index.html, which works from a file and loads nothing, and what is on it."""
    files = _files(services, broker=broker, url=url, namespace=namespace, title=title, release=release)
    for name, (_, text) in files.items():
        _save(output / name, text)
    typer.echo(f"{output / 'index.html'}")


def serve(
    services: Services,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8090,
    host: Annotated[str, typer.Option(help="127.0.0.1: nobody else sees it.")] = "127.0.0.1",
    broker: Broker = None,
    url: Url = None,
    namespace: Namespace = "",
    title: Title = None,
    release: Release = "1.0.0",
) -> None:
    """Show the page in a browser of this machine, until Ctrl-C."""
    files = _files(services, broker=broker, url=url, namespace=namespace, title=title, release=release)
    try:
        server = ThreadingHTTPServer((host, port), _handler(files))
    except OSError as error:
        fail(f"nothing can be served at {host}:{port}: {error.strerror or error}; choose another with --port")
    with server:
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"http://{shown}:{server.server_address[1]}/  (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("", err=True)


def map_(
    services: Services,
    format: Annotated[str, typer.Option("--format", help="svg, d2 or mermaid.")] = "svg",
    output: Annotated[Optional[Path], typer.Option("--output", "-o", help="A file.")] = None,  # noqa: UP045
    retries: Annotated[bool, typer.Option("--retries", help="With retries and dead letters.")] = False,
    links: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The address of the page: each message on the map leads there."),
    ] = None,
    namespace: Namespace = "",
) -> None:
    """Draw which service publishes and takes what."""
    if format not in _FORMATS:
        fail(f"--format {format}: it is one of {', '.join(_FORMATS)}")

    def draw(made: dict[str, Any]) -> str:
        found = chart(made)
        if format == "mermaid":
            return to_mermaid(found, retries=retries, links=links)
        d2 = to_d2(found, retries=retries, links=links)
        return d2 if format == "d2" else to_svg(d2)

    text = _made(services, draw, namespace=namespace)
    if output is None:
        typer.echo(text, nl=False)
    else:
        _save(output, text)


def _files(services: Sequence[str], **options: Any) -> dict[str, tuple[str, str]]:
    """The files of the page, by name: their media types and texts."""

    def write(made: dict[str, Any]) -> dict[str, tuple[str, str]]:
        found = chart(made)
        d2 = to_d2(found, links="index.html")
        return {
            "index.html": ("text/html; charset=utf-8", page(made)),
            "asyncapi.json": ("application/json", to_json(made)),
            "asyncapi.yaml": ("application/yaml", to_yaml(made)),
            "map.svg": ("image/svg+xml", to_svg(d2)),
            "map.d2": ("text/plain; charset=utf-8", d2),
            "map.mmd": ("text/plain; charset=utf-8", to_mermaid(found)),
        }

    return _made(services, write, **options)


def _made(services: Sequence[str], make: Callable[[dict[str, Any]], T], **options: Any) -> T:
    found = load(services)
    try:
        return make(document(*found, **options))
    except EventkitError as error:
        fail(str(error))


def _handler(files: dict[str, tuple[str, str]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "eventkit"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            name = self.path.partition("?")[0].removeprefix("/") or "index.html"
            media, text = files.get(name, ("text/plain; charset=utf-8", f"there is only {', '.join(files)} here\n"))
            sent = text.encode()
            self.send_response(200 if name in files else 404)
            self.send_header("Content-Type", media)
            self.send_header("Content-Length", str(len(sent)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if body:
                self.wfile.write(sent)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: what a browser asks for is of no interest here."""

    return Handler


def _save(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}")
