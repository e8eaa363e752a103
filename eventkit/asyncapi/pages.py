"""The page of a document: the map, each message with snippets, and the reference, in one file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from string import Template
from typing import Any

from eventkit.asyncapi import snippets
from eventkit.asyncapi.bindings import OWN
from eventkit.asyncapi.chart import Chart, Note, chart
from eventkit.asyncapi.d2 import to_d2, to_svg
from eventkit.asyncapi.errors import DocumentError
from eventkit.asyncapi.viewer import viewer

_FEW = 20
"""Messages, of which each shows a snippet at once."""


def page(document: Mapping[str, Any]) -> str:
    """The page of an AsyncAPI document, as HTML that works from a file and asks nothing of any server.

    Snippets name the classes of this process. DocumentError, if the extra `docs` is not installed or the document is
    not one of eventkit's.
    """
    if OWN not in document or "channels" not in document:
        raise DocumentError("the page is made from a document that eventkit wrote, and this one is of another make")
    shown, found = viewer(), chart(document)
    scripts = [shown.script, static("theme.js"), static("page.js")]
    info = document["info"]
    return Template(static("page.html")).substitute(
        policy=_policy(scripts),
        title=html.escape(info["title"]),
        release=html.escape(info["version"]),
        about=_paragraph(info.get("description")),
        style=static("page.css"),
        map=drawn(found, retries=False),
        map_with_retries=drawn(found, retries=True),
        services="".join(_service(name, found) for name in found.services),
        messages="".join(_message(note, found, document) for note in sorted(found.notes, key=_by_place)),
        count=len(found.notes),
        document=json.dumps(document, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
        viewer=shown.markup,
        licence=html.escape(shown.licence),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def _policy(scripts: list[str]) -> str:
    """What the browser may load: nothing. And only these scripts run, whatever a description holds."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; font-src data:; "
        "connect-src data:; base-uri 'none'; form-action 'none'"
    )


def drawn(found: Chart, *, retries: bool) -> str:
    """The map as a part of a page. DocumentError, if the extra `docs` is not installed."""
    drawn = to_svg(to_d2(found, retries=retries), salt="retries" if retries else "plain")

    def sized(found_: re.Match[str]) -> str:
        width = int(found_[2])  # a large map scrolls: smaller than this, its names cannot be read
        sizes = f"max-width:{width}px; min-width:{width * 6 // 10}px"
        return f'{found_[1]} role="group" aria-label="Services and messages" style="{sizes}"'

    return _SIZED.sub(sized, drawn, count=1)


_SIZED = re.compile(r'(<svg\b(?=[^>]* viewBox="0 0 (\d+) \d+")[^>]*?)(?=>)')


def _service(name: str, found: Chart) -> str:
    notes = [note for note in found.notes if name in found.services_of(note, sends=False)]
    sent = [note for note in found.notes if name in found.services_of(note, sends=True)]
    rows = [("takes", notes), ("publishes", sent)]
    shown = "".join(f"<dt>{word}</dt><dd>{_links(listed)}</dd>" for word, listed in rows if listed)
    safe = html.escape(name)
    return f'<article class="service" id="service-{safe}" tabindex="-1"><h3>{safe}</h3><dl>{shown}</dl></article>'


def _links(notes: list[Note]) -> str:
    shown = (
        f'<a class="{note.kind}" href="#{html.escape(note.anchor)}">{html.escape(note.type)}</a>'
        for note in sorted(notes, key=_by_place)
    )
    return " ".join(shown)


def _message(note: Note, found: Chart, document: Mapping[str, Any]) -> str:
    message, channel = document["components"]["messages"][note.key], document["channels"][note.channel]
    own, owner = message[OWN], channel[OWN]["name"]
    module, name = snippets.class_of(note.kind, owner, note.type)
    answer = next((arrow.reply for arrow in found.arrows if arrow.note == note and arrow.reply), None)
    examples = message.get("examples") or [{"payload": {}}]
    given = (note.kind, module, name, examples[0]["payload"], answer is not None)
    facts = [
        (
            "topic" if note.kind == "event" else "owner",
            html.escape(channel["address"] if note.kind == "event" else owner),
        ),
        ("key", html.escape(own.get("key", ""))),
        ("version", str(own["version"])),
        ("from", _names(found.services_of(note, sends=True))),
        ("to", _names(found.services_of(note, sends=False))),
        ("reply", html.escape(answer or "")),
    ]
    parts = {
        "Python": snippets.in_python(*given),
        "Command line": snippets.at_prompt(*given),
        "JSON": json.dumps(examples[0]["payload"], indent=2, ensure_ascii=False) + "\n",
    }
    shown = [
        _snippet(title, text, note.key, not number and len(found.notes) <= _FEW)
        for number, (title, text) in enumerate(parts.items())
    ]
    words = " ".join([note.type, note.kind, owner, *_properties(message, document), message.get("summary", "")]).lower()
    flag = '<span class="kind deprecated">deprecated</span>' if note.deprecated else ""
    return Template(static("message.html")).substitute(
        anchor=html.escape(note.anchor),
        key=html.escape(note.key),
        words=html.escape(words),
        kind=note.kind,
        flag=flag,
        type=html.escape(note.type),
        summary=_paragraph(message.get("description") or message.get("summary")),
        facts="".join(f"<dt>{word}</dt><dd>{said}</dd>" for word, said in facts if said),
        snippets="".join(shown),
    )


def _snippet(title: str, text: str, key: str, is_open: bool) -> str:
    shown = " open" if is_open else ""
    return (
        f'<details name="snippet-{html.escape(key)}"{shown}><summary>{title}</summary><div class="code">'
        f'<button type="button" class="copy" aria-label="Copy: {title}">Copy</button>'
        f'<pre tabindex="0"><code>{html.escape(text)}</code></pre></div></details>'
    )


def _properties(message: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    """The names of a message's fields, to find it by."""
    schema, schemas = message["payload"], document["components"].get("schemas", {})
    while isinstance(schema, Mapping) and "$ref" in schema:
        schema = schemas.get(schema["$ref"].rpartition("/")[2], {})
    yield from schema.get("properties", ()) if isinstance(schema, Mapping) else ()


def _names(services: list[str]) -> str:
    return ", ".join(f'<a href="#service-{html.escape(name)}">{html.escape(name)}</a>' for name in services)


def _paragraph(text: str | None) -> str:
    return f"<p>{html.escape(text)}</p>" if text else ""


def _by_place(note: Note) -> tuple[bool, str, str]:
    return note.kind == "command", note.channel, note.type


def static(name: str) -> str:
    return files("eventkit.asyncapi").joinpath("static", name).read_text(encoding="utf-8")
