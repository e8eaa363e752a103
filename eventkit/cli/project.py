"""A new project, from the templates that come with eventkit."""

from __future__ import annotations

import importlib.machinery
import keyword
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.metadata import version
from importlib.resources.abc import Traversable
from pathlib import Path

from eventkit.errors import DeclarationError
from eventkit.testing.brokers.compose import compose, url

_ENDING = ".txt"
"""Of a template, so that no tool takes it for a file of eventkit."""
_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_LONGEST = 60
_TAKEN = {"tests", "test", "build", "dist", "docs", "src"}


def package_name(name: str) -> str:
    """The import name of a project. DeclarationError where the name would not do, with the reason."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise DeclarationError(
            f"{name!r} cannot be the name of a project: it is lower-case letters, digits and single dashes, begins "
            f"with a letter and has at most {_LONGEST} characters, such as order-service"
        )
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or keyword.issoftkeyword(package) or package in _TAKEN:
        raise DeclarationError(f"{name!r} cannot be the name of a project: {package} has a meaning of its own in one")
    if package in sys.stdlib_module_names or package == "eventkit" or _installed(package):
        raise DeclarationError(
            f"{name!r} cannot be the name of a project: it would hide the module {package} that is installed here; "
            f"{name}-service would do"
        )
    return package


def write_project(name: str, broker: str, folder: Path) -> Path:
    """Make `folder/name`, whole or not at all, and return it.

    DeclarationError where the name will not do, or something stands there already: nothing is ever written over.
    """
    package = package_name(name)
    target = folder / name
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise DeclarationError(f"{target} is there already, and nothing is written over: choose another name")
    words = {
        "name": name,
        "package": package,
        "broker": broker,
        "url": url(broker),
        "versions": _versions(version("faststream-eventkit")),
    }
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as scratch:
        fresh = Path(scratch) / name
        for path, text in _files(resources.files("eventkit.cli") / "templates" / "project", words):
            file = fresh / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        (fresh / "compose.yaml").write_text(compose([broker]), encoding="utf-8")
        if target.exists():
            target.rmdir()  # empty, as it was above; else this fails
        shutil.move(fresh, target)
    return target


def _files(folder: Traversable, words: Mapping[str, str], inside: str = "") -> Iterator[tuple[str, str]]:
    """Each file of the template: its path in the project, and its text."""
    for entry in folder.iterdir():
        if entry.is_dir():
            name = words["package"] if entry.name == "PACKAGE" else entry.name
            yield from _files(entry, words, f"{inside}{name}/")
        elif entry.name.endswith(_ENDING):
            text = entry.read_text(encoding="utf-8")
            yield inside + entry.name.removesuffix(_ENDING), re.sub(r"@@(\w+)@@", lambda m: words[m[1]], text)


def _installed(package: str) -> bool:
    """Whether something is imported by this name, other than from the current folder."""
    here = {"", str(Path.cwd())}
    return (
        importlib.machinery.PathFinder.find_spec(package, [path for path in sys.path if path not in here]) is not None
    )


def _versions(ours: str) -> str:
    """The releases that a project made by this one may use: up to the next that may change the interface."""
    major, minor, *_ = (int(part) for part in re.findall(r"\d+", ours)[:2])
    return f">={ours},<{major}.{minor + 1}" if major == 0 else f">={ours},<{major + 1}"
