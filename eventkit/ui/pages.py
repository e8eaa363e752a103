"""The page: the map, drawn once, and the files that it is made of."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

from eventkit.adapter import Address
from eventkit.asyncapi import DocumentError, document, pages
from eventkit.asyncapi.bindings import OWN
from eventkit.asyncapi.chart import chart
from eventkit.asyncapi.declared import gather
from eventkit.service import Service
from eventkit.ui.rates import Stream

_FOLLOWED = ("topic", "inbox")
_STYLE = re.compile(r"<style[^>]*>(?:<!\[CDATA\[)?(.*?)(?:\]\]>)?</style>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Page:
    """What is served, and what of it the browser may run."""

    html: str
    assets: Mapping[str, tuple[str, str]]
    """By name: media type and text."""
    policy: str
    """The content security policy. Scripts and requests: our own alone."""
    addresses: Sequence[Address]
    """Topics and inboxes that the services read or send to."""
    anchors: Mapping[Stream, str]
    """The messages that the services declare, and where the map has them."""


def page(services: Sequence[Service], *, broker: str, namespace: str, read_only: bool) -> Page:
    """The page of these services. Without the extra `docs` it has no drawn map, and says so."""
    described = document(*services, namespace=namespace)
    try:
        shown = pages.drawn(chart(described), retries=False)
    except DocumentError as error:
        shown = f"<p>{html.escape(str(error))}</p>"
    names = [service.name for service in services]
    title = ", ".join(names) if len(names) <= 3 else f"{len(names)} services"
    whole = Template(static("ui.html")).substitute(
        title=html.escape(title),
        broker=html.escape(broker),
        namespace=html.escape(f" · {namespace}" if namespace else ""),
        map=shown,
        mode="read-only" if read_only else "",
    )
    assets = {
        "ui.css": ("text/css", static("ui.css")),
        "ui.js": ("text/javascript", static("ui.js")),
        "sign-in.js": ("text/javascript", static("sign-in.js")),
        "look.css": ("text/css", pages.static("page.css")),  # as the page of a document looks
        "theme.js": ("text/javascript", pages.static("theme.js")),
    }
    declared = gather(services)
    addresses = [address for address in declared.addresses if address.kind in _FOLLOWED]
    by_name = dict(_anchors(described))
    anchors = {Stream(where, type_): by_name.get((str(where), type_), "") for where, type_ in declared.messages}
    return Page(whole, assets, _policy(shown), addresses, anchors)


def _anchors(described: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    for note in chart(described).notes:
        own = described["channels"][note.channel][OWN]
        yield (f"{own['kind']}:{own['name']}", note.type), note.anchor


def _policy(shown: str) -> str:
    """The map brings style sheets of its own, each named here, and attributes of style; no script but ours runs."""
    digests = (base64.b64encode(hashlib.sha256(found.encode()).digest()).decode() for found in _STYLE.findall(shown))
    styles = " ".join(["'self'", *(f"'sha256-{digest}'" for digest in digests)])
    return (
        f"default-src 'none'; script-src 'self'; style-src-elem {styles}; style-src-attr 'unsafe-inline'; "
        "img-src data:; font-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'"
    )


def static(name: str) -> str:
    return files("eventkit.ui").joinpath("static", name).read_text(encoding="utf-8")
