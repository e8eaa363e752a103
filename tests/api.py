"""The public interface, a line for each name: `python -m tests.api` writes tests/api.txt anew.

What is public is what `__all__` of these modules names, with the members of its classes that have no underscore.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import griffe

MODULES = (
    "eventkit",
    "eventkit.adapter",
    "eventkit.asyncapi",
    "eventkit.blocking",
    "eventkit.cancelling",
    "eventkit.contract",
    "eventkit.errors",
    "eventkit.fastapi",
    "eventkit.faststream",
    "eventkit.headers",
    "eventkit.instruments",
    "eventkit.log",
    "eventkit.log_json",
    "eventkit.names",
    "eventkit.once",
    "eventkit.once_redis",
    "eventkit.otel",
    "eventkit.otel.reader",
    "eventkit.prometheus",
    "eventkit.security",
    "eventkit.sql",
    "eventkit.starlette",
    "eventkit.testing",
    "eventkit.testing.brokers",
)
FILE = Path(__file__).with_name("api.txt")


def lines() -> list[str]:
    """All of it, as the source says it: nothing is imported."""
    return [line for path, member in _members() for line in _of(path, member)]


def names() -> set[str]:
    """What may be imported, by its dotted path."""
    return {path for path, _ in _members()}


def _members() -> Iterator[tuple[str, griffe.Object | griffe.Alias]]:
    package = griffe.load("eventkit", search_paths=[Path(__file__).parent.parent], allow_inspection=False)
    for path in MODULES:
        module = package if path == "eventkit" else package[path.removeprefix("eventkit.")]
        for name in sorted(module.exports or _own(module)):
            yield f"{path}.{name}", module[str(name)]


def _own(module: griffe.Object | griffe.Alias) -> list[str]:
    """Of a module without `__all__`: what it defines."""
    return [name for name, member in module.members.items() if not name.startswith("_") and not member.is_alias]


def _of(path: str, member: griffe.Object | griffe.Alias) -> Iterator[str]:
    if isinstance(member, griffe.Alias):
        try:
            member = member.final_target
        except griffe.AliasResolutionError as error:
            yield f"{path} = {error.alias.target_path}"  # another library's, given on
            return
    if isinstance(member, griffe.Function):
        yield f"{path}({_parameters(member)}) -> {member.returns}"
    elif isinstance(member, griffe.Class):
        yield f"{path}({', '.join(map(str, member.bases))})"
        for name, inner in sorted(member.members.items()):
            if (not name.startswith("_") or name == "__init__") and not inner.is_alias:
                yield from _of(f"{path}.{name}", inner)
    elif isinstance(member, griffe.Attribute):
        yield path if member.annotation is None else f"{path}: {member.annotation}"
    else:
        yield path


def _parameters(function: griffe.Function) -> str:
    said: list[str] = []
    star = False
    for parameter in function.parameters:
        kind = parameter.kind
        if kind is griffe.ParameterKind.keyword_only and not star:
            said.append("*")
            star = True
        prefix = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(kind, "")
        star = star or kind is griffe.ParameterKind.var_positional
        default = "" if parameter.default is None or prefix else f" = {parameter.default}"
        annotation = "" if parameter.annotation is None else f": {parameter.annotation}"
        said.append(f"{prefix}{parameter.name}{annotation}{default}")
    return ", ".join(said)


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n", encoding="utf-8")
