"""Candidates: the services of a folder, found in the text of its Python files. Nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from eventkit.cli.sources import dotted, trees


def services(folder: Path) -> Sequence[str]:
    """As `module:name`, sorted: what is made by `Service(...)` at the top of a module, but for those of its tests."""
    return sorted(f"{module}:{name}" for module, tree in trees(folder, b"eventkit") for name in _services(tree))


def _services(tree: ast.Module) -> Iterator[str]:
    ours = set(_imported(tree))
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        else:
            continue
        if isinstance(target, ast.Name) and isinstance(value, ast.Call) and dotted(value.func) in ours:
            yield target.id


def _imported(tree: ast.Module) -> Iterator[str]:
    """How this module writes eventkit's Service."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "eventkit":
            yield from (alias.asname or alias.name for alias in node.names if alias.name == "Service")
        elif isinstance(node, ast.Import):
            yield from (f"{alias.asname or alias.name}.Service" for alias in node.names if alias.name == "eventkit")
