"""The map as Mermaid text, which GitHub and many wikis draw (pure)."""

from __future__ import annotations

from collections.abc import Iterator

from eventkit.asyncapi.chart import Arrow, Chart, Note

_STYLES = """\
  classDef service fill:#e6ebfb,stroke:#2944c9,color:#17191f,font-weight:bold
  classDef event fill:#ffffff,stroke:#5e626d,color:#17191f
  classDef command fill:#fdeee3,stroke:#b84e1a,color:#17191f
  classDef retry fill:#fff7d6,stroke:#8a6d00,color:#17191f
  classDef dead fill:#fde7e7,stroke:#b3261e,color:#17191f
"""


def to_mermaid(found: Chart, *, retries: bool = False, links: str | None = None) -> str:
    """The map as a Mermaid flowchart. `retries` and `links` as in `to_d2`; without links by default."""
    ids = _Ids()
    lines = [*_nodes(found, ids, links), *(line for arrow in found.arrows for line in _arrow(arrow, found, ids))]
    if retries:
        lines += _asides(found, ids)
    return "flowchart LR\n" + _STYLES + "".join(f"  {line}\n" for line in lines)


class _Ids:
    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def of(self, kind: str, name: str) -> str:
        return self._known.setdefault((kind, name), f"{kind}{len(self._known) + 1}")

    def note(self, note: Note) -> str:
        return self.of("message", note.key)


def _nodes(found: Chart, ids: _Ids, links: str | None) -> Iterator[str]:
    for service in found.services:
        yield f"{ids.of('service', service)}([{_text(service)}]):::service"
    for channel, address in found.topics.items():
        yield f"subgraph {ids.of('topic', channel)} [{_text(f'topic {address}')}]"
        yield from (f"  {ids.note(note)}[{_text(note.type)}]:::event" for note in found.on(channel))
        yield "end"
    for note in found.commands:
        yield f"{ids.note(note)}>{_text(note.type)}]:::command"
    if links is not None:
        for note in found.notes:
            yield f"click {ids.note(note)} {_text(f'{links}#{note.anchor}', hashes=True)}"


def _arrow(arrow: Arrow, found: Chart, ids: _Ids) -> Iterator[str]:
    service = ids.of("service", arrow.service)
    other = ids.of("topic", arrow.channel) if arrow.note is None else ids.note(arrow.note)
    if arrow.sends:
        yield f"{service} --> {other}"
        return
    yield f"{other} --> {service}"
    if arrow.reply is not None:
        yield f"{service} -. {_text(arrow.reply)} .-> {other}"


def _asides(found: Chart, ids: _Ids) -> Iterator[str]:
    for aside in found.asides:
        service, dead = ids.of("service", aside.service), ids.of("dead", aside.dead)
        yield f"{dead}([{_text(aside.dead)}]):::dead"
        yield f"{service} -.-> {dead}"
        if aside.retry is not None and aside.attempts > 1:
            retry = ids.of("retry", aside.retry)
            yield f"{retry}([{_text(aside.retry)}]):::retry"
            yield f"{service} <-. {_text(f'{aside.attempts} attempts')} .-> {retry}"


def _text(value: str, *, hashes: bool = False) -> str:
    """In quotes, with what Mermaid would read as its own written as entities."""
    safe = value if hashes else value.replace("#", "#35;")
    return '"' + safe.replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;").replace("\n", " ") + '"'
