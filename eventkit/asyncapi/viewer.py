"""What shows the document on the page. Another viewer takes its place by another `viewer()`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from eventkit.asyncapi.errors import DocumentError


@dataclass(frozen=True, slots=True)
class Viewer:
    """A viewer, as parts of a page that loads nothing."""

    script: str
    """JavaScript, to stand in the page."""
    markup: str
    """The element. The page gives it the document as the `src` of what has the id `reference`."""
    licence: str


def viewer() -> Viewer:
    """The web component of PyPI's `asyncapi-viewer`. DocumentError, if the extra `docs` is not installed."""
    try:
        assets = importlib.import_module("asyncapi_viewer.assets")
        script: str = assets.static_path(assets.VIEWER_IIFE).read_text(encoding="utf-8")
    except (ImportError, OSError):
        raise DocumentError("the page needs the extra `docs`: pip install 'faststream-eventkit[docs]'") from None
    return Viewer(
        script.replace("</script", "\\x3c/script").replace("<!--", "\\x3c!--"),
        '<asyncapi-viewer id="reference" sidebar show-operations="byOperationsTags" show-message-examples>'
        "</asyncapi-viewer>",
        "asyncapi-viewer, MIT",
    )
