"""A headless Chromium."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys

ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
DESKTOP, PHONE = (1400, 1000), (390, 844)
VIEWER = "return reference.shadowRoot?.getElementById('reference--messages') != null"


class Browser:
    """What a person does with a page, and what the page does behind their back."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        options.binary_location = shutil.which("chromium") or ""
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self._driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self.quit = self._driver.quit

    def open(self, url: str, size: tuple[int, int] = DESKTOP, ready: str = VIEWER) -> None:
        """Load it anew, in light colours, and wait until the script `ready` says so."""
        self._driver.get("about:blank")
        self.complaints()
        self._driver.get_log("performance")
        self._cdp("Emulation.setDeviceMetricsOverride", *size)
        self._driver.get(url)
        self.run("try { localStorage.clear() } catch {}")
        self.until(lambda: self.run(ready), 30)

    def _cdp(self, command: str, width: int, height: int) -> None:
        form = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._driver.execute_cdp_cmd(command, form)

    def run(self, script: str, *arguments: Any) -> Any:
        return self._driver.execute_script(script, *arguments)

    def text(self, css: str) -> list[str]:
        """Of what matches and is shown."""
        return [found.text for found in self._driver.find_elements("css selector", css) if found.is_displayed()]

    def click(self, css: str) -> None:
        found = self._driver.find_element("css selector", css)
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found)
        found.click()

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self._driver).send_keys(*keys).perform()

    def focused(self) -> str:
        return str(self.run("return document.activeElement.id"))

    def screenshot(self, file: Path) -> None:
        self._driver.save_screenshot(str(file))

    def until(self, true: Callable[[], object], seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() >= end:
                shown = self.run("return document.body.innerText")
                raise AssertionError(f"it did not come about; complaints: {self.complaints()}; the page:\n{shown}")
            time.sleep(0.02)

    def complaints(self) -> list[str]:
        """What the console holds: errors and warnings, those of the page's policy included."""
        return [
            entry["message"] for entry in self._driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
        ]

    def violations(self, axe: str) -> list[str]:
        """What axe has against the page. The viewer's own inside is not ours, and left out."""
        script = "const done = arguments[0]; axe.run({exclude: [['asyncapi-viewer']]}).then(done)"
        found = self._driver.execute_async_script(f"{axe};{script}")
        return [
            f"{rule['id']}: {node['target']} {node['failureSummary']}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]

    def strangers(self, home: str) -> list[str]:
        """Requests that went elsewhere since the page was opened."""
        events = [json.loads(entry["message"])["message"] for entry in self._driver.get_log("performance")]
        asked = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        assert asked, "the browser does not tell what it asks for"
        return [url for url in asked if not url.startswith((home, "data:", "blob:", "about:"))]


ESCAPE, ENTER, TAB = Keys.ESCAPE, Keys.ENTER, Keys.TAB
