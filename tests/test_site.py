"""The site is built without a warning, from every page, and needs no network to be read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert made.returncode == 0, made.stderr
    return folder


def test_every_page_is_there_and_leads_to_every_other(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert (site / f"{page.stem}.html").is_file(), page
        assert page.stem == "index" or f'href="{page.stem}.html"' in index, (
            f"{page.name} is in no list of docs/index.md"
        )


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    fetched = re.compile(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(https?:)?//', re.IGNORECASE)
    strangers = [page.name for page in site.rglob("*.html") if fetched.search(page.read_text(encoding="utf-8"))]
    assert strangers == []


def test_the_reference_explains_what_is_public(site: Path) -> None:
    text = (site / "reference.html").read_text(encoding="utf-8")
    for name in ("eventkit.connect", "eventkit.Service.handler", "eventkit.Retry.attempts", "eventkit.testing.run"):
        assert f'id="{name}"' in text, name
    assert "__new__" not in text, "what Python makes of a class explains nothing"
