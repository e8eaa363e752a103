"""Sources: the message classes of a folder, found in the text of its Python files. Nothing is imported."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["event", "command"]

_ROOTS: dict[str, Kind] = {"Event": "event", "Command": "command"}
_PASSED_OVER = {"__pycache__", "node_modules", "site-packages", "build", "dist", "test", "tests"}
_MOST_FILES = 2_000
_MOST_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, order=True)
class Declared:
    """A message class, as its source says it."""

    type: str
    """The wire name."""
    module: str
    name: str
    kind: Kind


@dataclass(slots=True)
class _Class:
    module: str
    node: ast.ClassDef
    bases: Sequence[str]
    direct: Kind | None
    """Derived from eventkit's own Event or Command."""


def import_roots(folder: Path) -> Sequence[Path]:
    """Where modules of a project in this folder are imported from: itself, and `src` where that is no package."""
    src = folder / "src"
    return [folder, src] if src.is_dir() and not (src / "__init__.py").exists() else [folder]


def messages(folder: Path) -> Sequence[Declared]:
    """The event and command classes at the top of this folder's modules, but for those of its tests, sorted.

    Dynamic declarations are not seen, nor is a class whose base stands outside of the folder.
    """
    found: dict[str, list[_Class]] = {}
    for module, tree in trees(folder, b"class "):
        for cls in _classes(tree, module):
            found.setdefault(cls.node.name, []).append(cls)
    made = (
        Declared(_wire_name(cls), cls.module, cls.node.name, kind)
        for classes in found.values()
        for cls in classes
        if (kind := _kind(cls, found)) is not None and _goes_somewhere(cls, found)
    )
    return sorted(made)


def trees(folder: Path, having: bytes) -> Iterator[tuple[str, ast.Module]]:
    """The modules of this folder whose text has these bytes, by name and parsed; but for those of its tests."""
    for path, module in islice(_modules(folder), _MOST_FILES):
        try:
            if path.stat().st_size <= _MOST_BYTES and having in (text := path.read_bytes()):
                yield module, ast.parse(text)
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
            continue  # whoever imports it is told


def _modules(folder: Path) -> Iterator[tuple[Path, str]]:
    roots = import_roots(folder)
    for root in roots:
        for where, folders, files in os.walk(root):
            here = Path(where)
            folders[:] = sorted(
                name
                for name in folders
                if name.isidentifier()
                and name not in _PASSED_OVER
                and here / name not in roots
                and not (here / name / "pyvenv.cfg").exists()
            )
            for file in sorted(files):
                stem, dot, ending = file.rpartition(".")
                if ending == "py" and dot and stem.isidentifier() and not stem.startswith("test_"):
                    parts = [*here.relative_to(root).parts, *([] if stem == "__init__" else [stem])]
                    if parts:
                        yield here / file, ".".join(parts)


def _classes(tree: ast.Module, module: str) -> Iterator[_Class]:
    ours = _imported(tree)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            bases = [dotted(base) for base in node.bases]
            direct: Kind | None = next((ours[base] for base in bases if base in ours), None)
            yield _Class(module, node, [base.rpartition(".")[2] for base in bases], direct)


def _imported(tree: ast.Module) -> dict[str, Kind]:
    """How this module writes eventkit's Event and Command."""
    names: dict[str, Kind] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "eventkit":
            names |= {alias.asname or alias.name: _ROOTS[alias.name] for alias in node.names if alias.name in _ROOTS}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "eventkit" or (alias.name.startswith("eventkit.") and alias.asname is None):
                    names |= {f"{alias.asname or 'eventkit'}.{name}": kind for name, kind in _ROOTS.items()}
    return names


def dotted(node: ast.expr) -> str:
    """A name as it is written, without what stands in brackets; empty where it is something else."""
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _lineage(cls: _Class, found: dict[str, list[_Class]]) -> Iterator[_Class]:
    """The class, and those that it is derived from, as far as the folder has them."""
    pending, seen = [cls], {id(cls)}
    while pending:
        one = pending.pop(0)
        yield one
        for base in one.bases:
            known = found.get(base, [])
            here = [other for other in known if other.module == one.module] or known
            for other in here:
                if id(other) not in seen:
                    seen.add(id(other))
                    pending.append(other)


def _kind(cls: _Class, found: dict[str, list[_Class]]) -> Kind | None:
    return next((one.direct for one in _lineage(cls, found) if one.direct is not None), None)


def _goes_somewhere(cls: _Class, found: dict[str, list[_Class]]) -> bool:
    words = {word.arg for one in _lineage(cls, found) for word in one.node.keywords}
    return bool(words & {"topic", "service"})


def _wire_name(cls: _Class) -> str:
    for word in cls.node.keywords:
        if word.arg == "type" and isinstance(word.value, ast.Constant) and isinstance(word.value.value, str):
            return word.value.value
    return cls.node.name
