"""The live view in a real browser, on real brokers: what it shows, what its buttons do, and what it never does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from eventkit.testing.brokers import Broker
from eventkit.ui import Doors
from tests.ui.shop import Served, TicketSold, served
from tests.wanted import wanted
from tests.web.browser import ENTER, ESCAPE, PHONE, Browser

LIVE = (
    "return link.dataset.state === 'live' && problems.hidden && document.querySelectorAll('#group-rows tr').length > 1"
)
SECRET = "4000-1234"
TYPES = "return [...document.querySelectorAll('#rows .type')].map((found) => found.textContent)"
LETTERS = "return document.querySelectorAll('#letter-rows li').length"


class Stage:
    """The shop and its page, in a loop of their own."""

    def __init__(self, name: str, url: str | None, doors: Doors | None = None, port: int = 0) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._made = served(name, url, doors, names="card_number", port=port)
        self.page: Served = self.do(self._made.__aenter__())

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def sell(self, *tickets: str) -> None:
        self.do(self.page.bus.publish_many([TicketSold(ticket_id=ticket, card_number=SECRET) for ticket in tickets]))

    def tell(self, change: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(change)

    def end(self) -> None:
        self.do(self._made.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        thorough = "stage" in metafunc.fixturenames
        names = [name for name in wanted(metafunc.config) if not thorough or name in ("memory", "redis")]
        metafunc.parametrize("name", names)


@pytest.fixture
def stage(name: str, broker: Callable[[str], Broker]) -> Iterator[Stage]:
    found = Stage(name, None if name == "memory" else broker(name).url)
    yield found
    found.end()


def shown(stage: Stage, chromium: Browser, size: tuple[int, int] = (1400, 1000)) -> Browser:
    chromium.open(stage.page.address, size, LIVE)
    return chromium


def clean(stage: Stage, page: Browser) -> None:
    """Nothing was complained of, nothing fetched from elsewhere, and nothing secret is there."""
    assert page.complaints() == []
    assert page.strangers(stage.page.address.partition("sign-in")[0]) == []
    assert SECRET not in page.run("return document.documentElement.outerHTML")


def test_a_day_at_the_shop(stage: Stage, chromium: Browser, axe: str) -> None:
    page = shown(stage, chromium)
    assert {"seating", "printing", "TicketSold", "PrintTicket"} <= set(page.text("#map svg text"))
    assert page.text("#group-rows th") == ["seating", "printing"]
    assert page.text("#nothing") != []

    stage.sell("lamp")
    page.until(lambda: set(page.run(TYPES)) >= {"TicketSold", "SeatTaken"}, 20)
    page.until(lambda: page.text("#map a[href='#message-TicketSold'] .live") != ["0.0 /s"], 20)
    sold = page.run(TYPES).index("TicketSold") + 1  # two topics: which of the two rows came first is nobody's promise
    page.click(f"#rows li:nth-child({sold}) summary")
    page.until(lambda: page.text("#rows pre"), 20)  # a browser tells of an opened row in a task of its own
    assert '"card_number": "***"' in page.text("#rows pre")[0]

    stage.tell(stage.page.shop.go_on.clear)
    stage.sell(*(f"queue {number}" for number in range(6)))
    waits = "return ['ready', 'in_flight'].reduce((sum, name) => sum + Number(of(`tile-${name}`).textContent), 0)"
    waits = f"const of = (id) => document.getElementById(id); {waits}"
    page.until(lambda: page.run(waits) >= 5, 20)
    stage.tell(stage.page.shop.go_on.set)
    page.until(lambda: page.run(waits) == 0, 20)

    filters(page)
    stage.sell("broken 1", "broken 2", "broken 3", "broken 4")
    page.until(lambda: page.run(LETTERS) == 4, 30)
    page.until(lambda: page.text("#dead-count") == ["4"], 20)  # told with the numbers, not with the letters
    colour = "return getComputedStyle(document.querySelector(arguments[0])).color"
    page.until(lambda: page.text("#group-rows .bad"), 20)
    assert page.run(colour, "#group-rows .bad") == page.run(colour, ".tiles .bad dd"), "red"
    page.click("#letter-rows li:first-child summary")
    page.until(lambda: page.text("#letter-rows pre"), 20)
    stack, payload = page.text("#letter-rows pre")[:2]
    assert "GiveUp: no seat for broken" in stack
    assert "paid with ***" in stack
    assert '"card_number": "***"' in payload
    facts = page.text("#letter-rows dd")
    assert {"gave-up", "topic:ui.tickets", "never"} <= set(facts)
    for _ in range(2):
        assert page.violations(axe) == []
        page.click("#theme")
    clean(stage, page)

    stage.page.shop.broken = False
    page.click("#letter-rows li:first-child .own button")
    page.press(ESCAPE)  # it asks first
    assert page.run(LETTERS) == 4
    answer(page, "#letter-rows li:first-child .own button")
    page.until(lambda: page.text("#said") == ["1 dead letter of seating retried"], 20)
    page.until(lambda: page.run(LETTERS) == 3 and stage.page.shop.taken[-1].startswith("broken"), 20)
    answer(page, "#letter-rows li:first-child .own .danger")
    page.until(lambda: page.text("#said") == ["1 dead letter of seating discarded"], 20)
    page.until(lambda: page.run(LETTERS) == 2, 20)
    page.click("#letter-rows li:first-child input")
    answer(page, ".deeds [data-verb=retry][data-which=selected]")
    page.until(lambda: page.run(LETTERS) == 1, 20)
    answer(page, ".deeds [data-verb=discard][data-which=all]")
    page.until(lambda: page.text("#no-letters") == ["seating has not given up on anything."], 20)
    page.until(lambda: page.text("#tile-dead") == ["0"], 20)
    page.until(lambda: len(stage.page.shop.taken) >= 9, 20)
    assert len(stage.page.shop.taken) == 9, "each was handled once: nothing was taken from the group"
    clean(stage, page)


def filters(page: Browser) -> None:
    page.press("/")
    assert page.focused() == "by-text"
    page.press("LAMP")
    page.until(lambda: sorted(page.run(TYPES)) == ["SeatTaken", "TicketSold"])
    page.press(ESCAPE)
    page.click("#map a[href='#message-SeatTaken']")
    page.until(lambda: page.focused() == "live")
    assert set(page.run(TYPES)) == {"SeatTaken"}
    choose(page, "by-type", "")
    choose(page, "by-address", "topic:ui.tickets")
    assert set(page.run(TYPES)) == {"TicketSold"}
    choose(page, "by-address", "")


def choose(page: Browser, select: str, value: str) -> None:
    page.run(
        "const found = document.getElementById(arguments[0]); found.value = arguments[1];"
        "found.dispatchEvent(new Event('change'))",
        select,
        value,
    )


def answer(page: Browser, button: str) -> None:
    """Press it, and say yes by the keyboard."""
    page.click(button)
    page.until(lambda: page.focused() == "ask-no")
    page.run("document.getElementById('ask-yes').focus()")
    page.press(ENTER)


def test_on_every_broker(name: str, broker: Callable[[str], Broker], chromium: Browser) -> None:
    found = Stage(name, None if name == "memory" else broker(name).url)
    try:
        page = shown(found, chromium)
        found.sell("one", "broken")
        page.until(lambda: set(page.run(TYPES)) >= {"TicketSold", "SeatTaken"}, 30)
        page.until(lambda: page.run(LETTERS) == 1, 30)
        clean(found, page)
    finally:
        found.end()


@pytest.fixture
def in_memory() -> Iterator[Stage]:
    found = Stage("memory", None)
    yield found
    found.end()


def test_on_a_phone(in_memory: Stage, chromium: Browser, axe: str) -> None:
    in_memory.sell("one", "broken")
    page = shown(in_memory, chromium, PHONE)
    page.until(lambda: page.run(LETTERS) == 1)
    assert page.run("return document.documentElement.scrollWidth") <= PHONE[0]
    assert page.violations(axe) == []


def test_a_question_right_after_another_is_answered(in_memory: Stage, chromium: Browser) -> None:
    """A browser says that the first was closed when the second is there already."""
    page = shown(in_memory, chromium)
    in_memory.sell("broken")
    page.until(lambda: page.run(LETTERS) == 1)
    page.run(
        "const button = document.querySelector('#letter-rows .own button');"
        "button.click(); document.getElementById('ask').close(); button.click()"
    )
    page.until(lambda: page.focused() == "ask-no")
    page.run("document.getElementById('ask-yes').focus()")
    page.press(ENTER)
    page.until(lambda: page.text("#said") == ["1 dead letter of seating retried"], 20)


def test_pausing(in_memory: Stage, chromium: Browser) -> None:
    page = shown(in_memory, chromium)
    page.click("#pause")
    in_memory.sell("one")
    page.until(lambda: page.text("#shown") == ["0 messages; paused, 2 wait"])
    assert page.run(TYPES) == []
    page.click("#pause")
    page.until(lambda: page.text("#shown") == ["2 messages"])
    page.click("#clear")
    assert page.run(TYPES) == []


def test_a_filter_leaves_open_what_somebody_reads(in_memory: Stage, chromium: Browser) -> None:
    page = shown(in_memory, chromium)
    in_memory.sell("one", "two", "three")
    page.until(lambda: len(page.run(TYPES)) == 6)
    order = page.text("#rows li")
    head = "[...document.querySelectorAll('#rows summary')].find((one) => /TicketSold.*two/.test(one.textContent))"
    page.run(f"window.read = {head}; read.click(); read.focus()")
    page.until(lambda: "Payload" in page.run("return read.parentElement.textContent"))
    is_read = "return read.isConnected && read.parentElement.open && document.activeElement === read"
    for address, shown_then in (("topic:ui.tickets", 3), ("", 6)):
        choose(page, "by-address", address)
        assert len(page.run(TYPES)) == shown_then
        assert page.run(is_read)
    page.run("read.click()")
    assert page.text("#rows li") == order
    in_memory.sell("four")
    page.until(lambda: len(page.run(TYPES)) == 8)


def test_hostile_messages_are_text(in_memory: Stage, chromium: Browser) -> None:
    page = shown(in_memory, chromium)
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    in_memory.sell(evil, f"broken {evil}")
    page.until(lambda: page.run(LETTERS) == 1)
    assert any(evil in text for text in page.text("#rows li"))
    assert page.run("return document.querySelectorAll('main img, main script').length") == 0
    clean(in_memory, page)


def test_it_comes_back_by_itself(chromium: Browser) -> None:
    """The page's connection goes; then the page of another server is there, at the same place."""
    first = Stage("memory", None)
    page = shown(first, chromium)
    page.run("window.before = true")
    port = int(first.page.address.split(":")[2].rstrip("/"))
    first.end()
    page.until(lambda: page.text("#link") == ["connection lost, trying again"], 20)
    second = Stage("memory", None, port=port)
    try:
        page.until(lambda: page.run("return !window.before") and page.run(LIVE), 40)
        second.sell("again")
        page.until(lambda: "TicketSold" in page.run(TYPES), 20)
    finally:
        second.end()
    page.complaints()


def test_signing_in(chromium: Browser, axe: str) -> None:
    doors = Doors(token="a token that is long")
    found = Stage("memory", None, doors)
    try:
        home = found.page.address.partition("sign-in")[0]
        chromium.open(home, ready="return document.getElementById('form') !== null")
        assert chromium.violations(axe) == []
        chromium.click("#token")
        chromium.press("wrong", ENTER)
        chromium.until(lambda: chromium.text("#wrong") != [], 20)
        chromium.complaints()
        chromium.run("document.getElementById('token').value = ''")
        chromium.click("#token")
        chromium.press("a token that is long", ENTER)
        chromium.until(lambda: chromium.run(f"return !document.getElementById('form') && (() => {{ {LIVE} }})()"), 20)
        assert "eventkit" not in chromium.run("return document.cookie")
        clean(found, chromium)
    finally:
        found.end()
    other = Stage("memory", None, doors)
    try:
        chromium.open(other.page.address, ready=f"return !document.getElementById('form') && (() => {{ {LIVE} }})()")
        assert "#" not in chromium.run("return location.href")
    finally:
        other.end()
