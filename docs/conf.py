"""The site: `nox -s site` builds it into build/site, from the Markdown here and from the docstrings."""

from __future__ import annotations

import re
from importlib.metadata import version as installed
from typing import Any

import eventkit.fastapi  # before autodoc does, which sets TYPE_CHECKING, and FastAPI's models do not take that
import eventkit.starlette

assert eventkit.fastapi
assert eventkit.starlette

project = "eventkit"
version = release = installed("faststream-eventkit")
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["images"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
html_theme = "furo"
html_title = "eventkit"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "inherited-members": "BaseModel,BaseException,Enum,str,tuple,ABC,Protocol,Generic",
    "exclude-members": "errno,filename,filename2,strerror,characters_written",  # what OSError brings
}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
suppress_warnings = ["ref.python"]  # a class and its module may share a name

_FENCE = re.compile(r"^( *)```(\w*)$")
_CODE = re.compile(r"(?<![`:])`([^`\n]+)`(?!`)")


def as_rst(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Our docstrings are Markdown, as the pages are: their code is turned into what autodoc reads."""
    found: list[str] = []
    inside = False
    for line in lines:
        fence = _FENCE.match(line)
        if fence and not inside:
            found += ["", f"{fence[1]}.. code-block:: {fence[2] or 'text'}", ""]
        elif fence:
            found.append("")
        else:
            found.append(f"    {line}" if inside else _CODE.sub(r"``\1``", line))
        inside = inside != bool(fence)
    lines[:] = found


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", as_rst)
