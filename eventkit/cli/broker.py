"""What the commands share that look at a broker: which groups are meant, the connection, errors in one line."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional, TypeVar

import typer

from eventkit import discovery
from eventkit.adapter import Group, Provision
from eventkit.bus import Bus
from eventkit.cli.ending import FAILED, STOPPED, fail
from eventkit.cli.named import load
from eventkit.cli.sources import import_roots
from eventkit.cli.table import printable
from eventkit.connecting import connect
from eventkit.errors import DeclarationError, EventkitError, SettingsError
from eventkit.names import logical
from eventkit.redacting import Redactor
from eventkit.redacting import read as read_redactor
from eventkit.settings import Settings, read_settings

T = TypeVar("T")

_ALONE = (
    "the memory broker lives inside the process that uses it, so nothing of it can be seen from here: "
    "set EVENTKIT_BROKER and EVENTKIT_URL to a broker that the services share"
)

Broker = Annotated[Optional[str], typer.Option(help="Instead of EVENTKIT_BROKER.")]  # noqa: UP045
Url = Annotated[Optional[str], typer.Option(help="Instead of EVENTKIT_URL.")]  # noqa: UP045
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]


def _of_groups(default: str) -> Any:
    text = (
        "A group by its name, such as shipping or shipping.audit; or all groups of a service, found by module:service. "
        f"May be repeated. Default: the service in EVENTKIT_SERVICE{default}."
    )
    return typer.Option("--group", "-g", metavar="NAME|MODULE:SERVICE", help=text)


Groups = Annotated[Optional[list[str]], _of_groups("")]  # noqa: UP045
GroupsToSee = Annotated[Optional[list[str]], _of_groups(", else all groups on the broker")]  # noqa: UP045


def groups(said: Sequence[str] | None, *, all_else: bool = False) -> dict[str, Group | None]:
    """The groups that are meant, by name; None where only the name is known, and so not what it reads.

    `all_else`: none, where none is said; `all_groups` then gives those that there are.
    """
    found: dict[str, Group | None] = {}
    for word in said or _default(all_else):
        if ":" in word:
            for service in load([word]):
                found.update({name: group for name, (group, _) in service.groups().items()})
        else:
            try:
                found.setdefault(logical(word, f"--group {word}"), None)
            except DeclarationError as error:
                fail(str(error))
    return found


async def all_groups(bus: Bus, said: dict[str, Group | None]) -> dict[str, Group | None]:
    """Those that are said; where none are, all that the broker has."""
    if said:
        return said
    found = await bus.adapter.groups()
    if not found:
        fail("there are no groups on this broker, in this namespace; eventkit doctor shows where it looks", FAILED)
    return {group.name: group for group in sorted(found, key=lambda group: group.name)}


def environment() -> Settings:
    """What the variables say; a wrong one ends the command."""
    try:
        return read_settings(discovery.installed())
    except SettingsError as error:
        fail(str(error))


def redaction() -> Redactor:
    """What EVENTKIT_REDACT hides of all that is shown."""
    try:
        said = read_settings(discovery.installed()).redact
        if ":" in said:
            sys.path[:0] = [str(root) for root in import_roots(Path.cwd())]
        return read_redactor(said)
    except SettingsError as error:
        fail(str(error))


def run(
    work: Callable[[Bus], Awaitable[T]],
    broker: str | None,
    url: str | None,
    *,
    alone: str | None = _ALONE,
    source: str | None = "eventkit-cli",
    provision: Provision | None = Provision.VALIDATE,
) -> T:
    """Do it on the broker that the environment names; what is wrong is said in one line.

    `alone`: what is said of the memory broker; None: it will do. `source` and `provision`: as for `connect`, where
    None is what the environment says; by default nothing is created on the broker.
    """
    named = broker or "the broker"
    try:
        named = broker or read_settings(discovery.installed()).broker
        if named == "memory" and alone is not None:
            fail(alone)
        return asyncio.run(_connected(work, named, url, source, provision))
    except (SettingsError, DeclarationError) as error:
        fail(str(error))
    except EventkitError as error:
        fail(str(error), FAILED)
    except (typer.Exit, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        raise typer.Exit(STOPPED) from None
    except Exception as error:  # noqa: BLE001 a client's own error: a person is told, in one line
        fail(f"{named} refused it: {describe(error)}", FAILED)


def describe(error: BaseException) -> str:
    """An error in one line, with its class where that says more."""
    said = printable(str(error).strip())
    return said if isinstance(error, EventkitError) and said else f"{type(error).__name__}: {said}".rstrip(": ")


async def _connected(
    work: Callable[[Bus], Awaitable[T]], broker: str, url: str | None, source: str | None, provision: Provision | None
) -> T:
    async with connect(broker, url, service=source, provision=provision) as bus:
        return await work(bus)


def width() -> int:
    """Characters of a line of this terminal; of a file or a pipe no limit."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def _default(all_else: bool) -> Sequence[str]:
    settings = environment()
    if "service" not in settings.model_fields_set and not all_else:
        fail("say whose: --group shipping, or --group shop.shipping:service for all groups of a service")
    return [settings.service] if "service" in settings.model_fields_set else []
