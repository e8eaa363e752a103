"""`eventkit docs json | yaml | check`: the AsyncAPI document, and the check that holds code to a committed one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from eventkit.asyncapi import accept, contract, report
from eventkit.asyncapi.bindings import OWN
from eventkit.asyncapi.compare import compare
from eventkit.asyncapi.document import document, documents
from eventkit.asyncapi.errors import DocumentError
from eventkit.asyncapi.texts import to_json, to_yaml
from eventkit.cli import page
from eventkit.cli.ending import FAILED, fail
from eventkit.cli.named import Services, load
from eventkit.errors import EventkitError
from eventkit.service import Service

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="The AsyncAPI document of services.")
page.add(app)

_FORMATS = {"text": report.as_text, "json": report.as_json, "github": report.as_github}

Output = Annotated[Optional[Path], typer.Option("--output", "-o", help="A file; with --each, a folder.")]  # noqa: UP045
Each = Annotated[bool, typer.Option("--each", help="A document for each service, not one for all.")]
Version = Annotated[Optional[str], typer.Option("--asyncapi", help="3.0.0 or 3.1.0.")]  # noqa: UP045
Broker = Annotated[Optional[str], typer.Option(help="Adds the servers and bindings of this broker.")]  # noqa: UP045
Url = Annotated[Optional[str], typer.Option(help="Where the broker is. No secret in it gets out.")]  # noqa: UP045
Namespace = Annotated[Optional[str], typer.Option(help="What EVENTKIT_NAMESPACE is when they run.")]  # noqa: UP045
Title = Annotated[Optional[str], typer.Option(help="By default the services' names.")]  # noqa: UP045
Release = Annotated[Optional[str], typer.Option(help="The version of their interface; 1.0.0 by default.")]  # noqa: UP045
Security = Annotated[Optional[str], typer.Option(help="How one signs in, as AsyncAPI names it.")]  # noqa: UP045


def _command(form: str) -> Callable[..., None]:
    def write(  # noqa: PLR0913 each is an option of the command line
        services: Services,
        output: Output = None,
        each: Each = False,
        asyncapi: Version = None,
        broker: Broker = None,
        url: Url = None,
        namespace: Namespace = None,
        title: Title = None,
        release: Release = None,
        security: Security = None,
    ) -> None:
        given = {
            "version": asyncapi,
            "broker": broker,
            "url": url,
            "namespace": namespace,
            "title": title,
            "release": release,
            "security": security,
        }
        options = {name: value for name, value in given.items() if value is not None}
        _write(services, form, output, each, options)

    return write


app.command(
    "json",
    help="Print the document as JSON. It needs no broker and reads no EVENTKIT_ variable: it is the same everywhere.",
)(_command("json"))
app.command("yaml", help="Print the document as YAML. It needs the extra `docs`, and is else as `json`.")(
    _command("yaml")
)


@app.command()
def check(
    committed: Annotated[Path, typer.Argument(metavar="DOCUMENT", help="The committed document, YAML or JSON.")],
    services: Services,
    format: Annotated[str, typer.Option("--format", help="text, json or github.")] = "text",
    exact: Annotated[bool, typer.Option("--exact", help="Fail on compatible changes too: write it anew.")] = False,
    accepted: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help=f"The file of accepted changes; {accept.FILE} beside the document by default."),
    ] = None,
    accept_: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--accept", metavar="CHANGE", help="Accept this breaking change, or `all`, and keep why."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why it is accepted.")] = "",
    namespace: Namespace = None,
) -> None:
    """Compare the code with a committed document, and fail on a change that breaks who reads or sends messages.

    Exit code 1: there is such a change, which nobody accepted. 2: the document or the services cannot be read.
    """
    if format not in _FORMATS:
        fail(f"--format {format}: it is one of {', '.join(_FORMATS)}")
    try:
        made = _report(committed, load(services), accepted, namespace, accept_ or [], reason)
    except EventkitError as error:
        fail(str(error))
    typer.echo(_FORMATS[format](made), nl=False)
    if made.breaks or (exact and made.changes):
        raise typer.Exit(FAILED)


def _report(
    committed: Path,
    services: Sequence[Service],
    accepted: Path | None,
    namespace: str | None,
    accept_: Sequence[str],
    reason: str,
) -> report.Report:
    old = contract.load(committed)
    new = document(*services, **_as_committed(old, namespace))
    try:
        changes = compare(old, new)
    except DocumentError as error:
        raise DocumentError(f"{committed}: {error}") from error
    path = accepted or committed.with_name(accept.FILE)
    if accept_:
        breaking = [change for change in changes if change.breaks]
        for name in accept_:
            if name != "all" and name not in {change.id for change in breaking}:
                raise DocumentError(f"--accept {name!r}: there is no such breaking change")
        accept.add(path, [change for change in breaking if "all" in accept_ or change.id in accept_], reason)
    return report.Report(str(committed), changes, accept.load(path))


def _as_committed(old: dict[str, Any], namespace: str | None) -> dict[str, Any]:
    """The options that a document was made with, as far as it says."""
    said, info = old.get(OWN), old.get("info")
    own = said if isinstance(said, dict) else {}
    about = info if isinstance(info, dict) else {}
    return {
        "namespace": str(own.get("namespace", "")) if namespace is None else namespace,
        "title": about.get("title"),
        "release": about.get("version", "1.0.0"),
        "description": about.get("description"),
        "content_type": old.get("defaultContentType", "application/json"),
    }


def _write(names: Sequence[str], form: str, output: Path | None, each: bool, options: dict[str, Any]) -> None:
    write = to_json if form == "json" else to_yaml
    try:
        services = load(names)
        if each:
            _write_each(documents(*services, **options), write, form, output)
            return
        text = write(document(*services, **options))
    except EventkitError as error:
        fail(str(error))
    if output is None:
        typer.echo(text, nl=False)
    else:
        _save(output, text)


def _write_each(found: dict[str, dict[str, Any]], write: Any, form: str, folder: Path | None) -> None:
    if folder is None:
        fail("--each writes several documents: say into which folder, with -o")
    for name, document_ in found.items():
        _save(folder / f"{name}.{form}", write(document_))


def _save(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}")
