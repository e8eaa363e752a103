"""Makes docs/images/ui.png and ui-dead-letters.png: the page of `eventkit ui`, from a run of the shop in memory.

python scripts/ui_picture.py
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from pathlib import Path

import eventkit
from eventkit.redacting import Redactor
from eventkit.ui import Doors, show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
FOLDER = ROOT / "docs" / "images"
ORDERS = (("lamp", "12 Mill Lane"), ("chair", "7 Harbour Street"), ("vase", "the house behind the hill"))
SIZE = (1200, 980)


async def shop(ready: asyncio.Future[str]) -> None:
    """The shop, and customers, until cancelled."""
    from examples.shop import services
    from examples.shop.messages import PlaceOrder

    async with eventkit.connect("memory", service="website") as bus, bus.run(*services):
        page = show(
            bus, services, Doors(), port=0, namespace="", redactor=Redactor(["address"]), ready=ready.set_result
        )
        serving = asyncio.create_task(page)
        try:
            number = 40
            while True:
                number += 1
                item, address = ORDERS[2 if number % 9 == 0 else number % 2]
                await bus.send(PlaceOrder(order_id=str(number), item=item, address=address))
                await asyncio.sleep(0.4)
        finally:
            serving.cancel()
            await asyncio.wait([serving])


def main() -> None:
    from tests.web.browser import Browser

    loop = asyncio.new_event_loop()
    ready: asyncio.Future[str] = loop.create_future()
    threading.Thread(target=loop.run_until_complete, args=[shop(ready)], daemon=True).start()
    browser = Browser(Path(tempfile.mkdtemp()))
    try:
        browser.until(ready.done, 60)
        letters = "return document.querySelectorAll('#letter-rows li').length >= 2"
        browser.open(ready.result(), SIZE, "return link.dataset.state === 'live'")
        browser.until(lambda: browser.text("#dead-count"), 60)
        browser.run("[...document.querySelectorAll('.chips button')].find((one) => one.innerText[0] === 's').click()")
        browser.until(lambda: browser.run(letters), 90)
        take(browser, "ui.png", "scrollTo(0, 0)")
        browser.click("#theme")
        browser.run("document.querySelector('#letter-rows summary').click()")
        browser.until(lambda: browser.text("#letter-rows pre"))
        stack = "const found = document.querySelector('#letter-rows pre'); found.textContent = found.textContent"
        browser.run(f"{stack}.replaceAll(arguments[0], '/srv')", str(ROOT))  # of whose machine is of no interest
        take(browser, "ui-dead-letters.png", "document.getElementById('letters').scrollIntoView({behavior: 'instant'})")
    finally:
        browser.quit()


def take(browser: object, name: str, script: str) -> None:
    browser.run(script)  # type: ignore[attr-defined]
    browser.screenshot(FOLDER / name)  # type: ignore[attr-defined]
    sys.stdout.write(f"wrote docs/images/{name}\n")


if __name__ == "__main__":
    main()
