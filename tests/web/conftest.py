"""A real Chromium, and the page of the shop as `eventkit docs serve` shows it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.browser import Browser

INSTALL = Path(__file__).with_name("install-chromium")
ROOT = Path(__file__).parents[2]
IMPOSSIBLE = 75
AXE = ROOT / "build" / "axe", "axe-core@4.14.1"
EVENTKIT = (sys.executable, "-c", "from eventkit.cli import main; main()")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests. Where it is missing and cannot be installed, they are skipped; where it could be, CI fails."""
    made = subprocess.run([INSTALL], capture_output=True, text=True, timeout=300, check=False)
    if made.returncode:
        text = f"the page was not tried in a browser: there is no Chromium, nor can it be had ({made.stderr.strip()})"
        (pytest.fail if os.environ.get("CI") and made.returncode != IMPOSSIBLE else pytest.skip)(text)
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def shop() -> Iterator[str]:
    """The address of the page of examples.shop, served by the command."""
    command = [*EVENTKIT, "docs", "serve", "examples.shop:services", "--port", "0"]
    command += ["--broker", "kafka", "--url", "kafka://user:hunter2@localhost:9092"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as serving:
        assert serving.stdout is not None
        try:
            yield serving.stdout.readline().split()[0]
            # a shell that runs us in the background has us, and those we start, ignore the other one
            serving.send_signal(signal.SIGTERM if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else signal.SIGINT)
            assert serving.wait(10) == 0
        finally:
            serving.kill()


@pytest.fixture
def page(chromium: Browser, shop: str) -> Iterator[Browser]:
    """The page, just opened. At the end nothing was complained of, and nothing fetched from elsewhere."""
    chromium.open(shop)
    yield chromium
    assert chromium.complaints() == []
    assert chromium.strangers(shop) == []


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe, which npm installs into a folder that is not committed."""
    folder, package = AXE
    script = folder / "node_modules/axe-core/axe.min.js"
    if not script.exists():
        if shutil.which("npm") is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)("axe is missing: npm is not installed")
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", package]
        made = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if made.returncode:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"axe is missing: {made.stderr.strip()[-300:]}")
    return script.read_text(encoding="utf-8")
