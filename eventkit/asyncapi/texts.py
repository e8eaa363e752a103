"""Texts for people: from docstrings, and a document as JSON or YAML (pure)."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from eventkit.asyncapi.errors import DocumentError

_NEWER_YAML = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+")
"""What YAML 1.2 takes for a number, and PyYAML, which knows 1.1, would leave unquoted."""


def described(doc: str | None) -> dict[str, str]:
    """A docstring's first paragraph as the summary, and all of it as the description, if there is more."""
    text = inspect.cleandoc(doc or "").strip()
    if not text:
        return {}
    first, _, more = text.partition("\n\n")
    summary = " ".join(first.split())
    return {"summary": summary, "description": text} if more else {"summary": summary}


def ordered(value: Any) -> Any:
    """With the keys of every mapping sorted: what is equal looks equal."""
    if isinstance(value, dict):
        return {name: ordered(value[name]) for name in sorted(value)}
    if isinstance(value, list | tuple):
        return [ordered(item) for item in value]
    return value


def to_json(document: dict[str, Any]) -> str:
    """A document as JSON: sorted, and the same from run to run."""
    return json.dumps(ordered(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_yaml(document: dict[str, Any]) -> str:
    """A document as YAML: sorted, and the same from run to run. Needs the extra `docs`."""
    yaml = load_yaml_library()

    class Dumper(yaml.SafeDumper):  # type: ignore[misc, name-defined]
        def ignore_aliases(self, data: object) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value else "'" if _NEWER_YAML.fullmatch(value) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    dumped: str = yaml.dump(
        ordered(document), Dumper=Dumper, sort_keys=True, allow_unicode=True, width=110, default_flow_style=False
    )
    return dumped


def load_yaml_library() -> Any:
    """PyYAML. DocumentError says which extra brings it."""
    try:
        import yaml
    except ImportError:
        raise DocumentError(
            "YAML needs the extra `docs`: pip install 'faststream-eventkit[docs]' (JSON needs nothing)"
        ) from None
    return yaml
