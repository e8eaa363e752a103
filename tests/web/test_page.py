"""The page in a real browser: what is on it, the map, links, search, colours, keyboard, a phone, no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eventkit import Command, Event, Service, asyncapi
from eventkit.asyncapi import document
from tests.web.browser import ENTER, ESCAPE, PHONE, TAB, Browser
from tests.web.conftest import IMPOSSIBLE, INSTALL, ROOT

MESSAGES = ["OrderClosed", "OrderPlaced", "OrderRefused", "ParcelSent", "PaymentTaken", "PlaceOrder", "QuoteShipping"]
SERVICES = ["audit", "orders", "payments", "shipping"]


class Odd(Event, topic="odd", key="id"):
    """<script>alert(1)</script> & "quotes" ${dollars} </script>"""

    id: str


class Strange(Command, service="odd", type="odd.strange</script>"):
    text: str = '</script><img src="http://evil.invalid/x">'


odd = Service("odd", publishes=(Odd,))


@odd.handler
async def on_strange(command: Strange) -> Odd: ...


def test_everything_is_there(page: Browser) -> None:
    assert page.text(".message h3") == MESSAGES
    assert page.text("article.service h3") == SERVICES
    drawn = page.text("#map-plain svg text")
    assert {*MESSAGES, *SERVICES, "topic orders", "Quote"} <= set(drawn)
    assert page.text("#message-QuoteShipping dd") == ["shipping", "1", "shipping", "Quote"]
    inside = page.run("return [...reference.shadowRoot.children].map((part) => part.textContent).join()")
    for expected in ("localhost:9092", "OrderPlaced", "order_id", "ce-id", "Quote", "payments.charge"):
        assert expected in inside
    assert "hunter2" not in page.run("return document.documentElement.outerHTML")
    assert page.run("return reference.shadowRoot.querySelector('a[download]').download") == "asyncapi.json"


def test_the_map_leads_to_messages_and_services(page: Browser) -> None:
    for name, place in (("PaymentTaken", "message-PaymentTaken"), ("audit", "service-audit")):
        page.click(f"#map-plain a[href='#{place}']")
        page.until(lambda place=place: page.focused() == place)
        top = f"return document.getElementById('{place}').getBoundingClientRect().top"
        page.until(lambda top=top: 0 < page.run(top) < 900)
        assert name in page.text(f"#{place}")[0]


def test_retries_and_dead_letters_come_on_request(page: Browser) -> None:
    assert "payments.dead" not in page.text("#map svg text")
    page.click("#retries")
    shown = page.text("#map svg text")
    assert {"payments.dead", "payments.retry", "5 attempts", "PaymentTaken"} <= set(shown)
    page.click("#retries")
    assert "payments.dead" not in page.text("#map svg text")


def test_search_by_keyboard(page: Browser) -> None:
    page.press("/")
    assert page.focused() == "search"
    page.press("tracking")  # a field
    assert page.text(".message h3") == ["ParcelSent"]
    assert page.text("#found") == ["1 of 7 messages"]
    page.press(ENTER)
    assert page.focused() == "message-ParcelSent"
    page.press("/")
    page.press(ESCAPE)
    assert page.text(".message h3") == MESSAGES
    page.press("command ship")
    assert page.text(".message h3") == ["QuoteShipping"]
    page.run("location.hash = 'message-OrderPlaced'")  # hidden by the search
    page.until(lambda: page.focused() == "message-OrderPlaced")


def test_a_keyboard_reaches_everything(page: Browser) -> None:
    page.press(TAB)
    assert page.run("return document.activeElement.className") == "skip"
    page.press(ENTER)
    page.until(lambda: page.focused() == "messages")
    page.press(TAB)
    assert page.run("return document.activeElement.closest('.message').id") == "message-OrderClosed"
    reached = page.run("return [...document.querySelectorAll('#map-plain a')].every((link) => link.tabIndex === 0)")
    assert reached


def test_a_message_leads_to_its_schema(page: Browser) -> None:
    page.click("#message-PaymentTaken .more")
    shown = (
        "const found = reference.shadowRoot.getElementById('reference--messages--PaymentTaken');"
        "const box = found.getBoundingClientRect(); return box.top > -50 && box.top < innerHeight && found.open"
    )
    page.until(lambda: page.run(shown))


def test_dark_and_light(page: Browser) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    viewer = "return getComputedStyle(reference.shadowRoot.querySelector('h1, h2')).color"
    box = "return getComputedStyle(document.querySelector('#map-plain g.event rect')).fill"
    asked = [page.run(script) for script in (ground, viewer, box)]
    page.click("#theme")
    page.until(lambda: all(page.run(script) != old for script, old in zip((ground, viewer, box), asked, strict=True)))
    assert page.run("return document.getElementById('theme').getAttribute('aria-pressed')") == "true"
    page.click("#theme")
    page.until(lambda: [page.run(script) for script in (ground, viewer, box)] == asked)


def test_a_phone_shows_it_without_sideways_scrolling(chromium: Browser, shop: str) -> None:
    chromium.open(shop, PHONE)
    assert chromium.run("return document.documentElement.scrollWidth") <= PHONE[0]
    assert chromium.text(".message h3") == MESSAGES
    assert chromium.complaints() == []


@pytest.mark.parametrize("message", ["OrderPlaced", "PlaceOrder", "QuoteShipping"])
def test_snippets_run_as_they_stand(page: Browser, message: str, tmp_path: Path) -> None:
    """Up to the broker: in memory a command finds no inbox, as no service runs, and the prompt nobody at all."""
    python, prompt, body = (
        page.run(f"return document.querySelectorAll('#message-{message} pre')[{number}].textContent")
        for number in range(3)
    )
    environment = {**os.environ, "EVENTKIT_BROKER": "memory", "PYTHONPATH": str(ROOT)}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    (tmp_path / "snippet.py").write_text(python)
    code, typed = (
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for command in (["python", str(tmp_path / "snippet.py")], ["sh", "-c", prompt])
    )
    _, said = code.communicate(timeout=30)
    if message == "OrderPlaced":
        assert (code.returncode, said) == (0, "")
    else:
        assert "eventkit.errors.NoOwner" in said
    _, said = typed.communicate(timeout=30)
    assert typed.returncode == 2
    assert said.startswith("eventkit: the memory broker lives inside one process"), said  # the message was right
    assert json.loads(body)


def test_axe_finds_nothing(page: Browser, axe: str) -> None:
    """In both colours, of what is ours."""
    for _ in range(2):
        assert page.violations(axe) == []
        page.click("#theme")


def test_copying_says_so(page: Browser) -> None:
    page.click("#message-OrderClosed .copy")
    page.until(lambda: page.text("#message-OrderClosed .copy") == ["Copied"])


def test_a_file_with_hostile_texts(chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    file.write_text(page_of_odd(), encoding="utf-8")
    chromium.open(file.as_uri())
    assert chromium.text(".message h3") == ["Odd", "odd.strange</script>"]
    assert "<script>alert(1)</script>" in chromium.text(".message p")[0]
    assert chromium.complaints() == []
    assert chromium.strangers("file://") == []


def page_of_odd() -> str:
    return asyncapi.page(document(odd, description="<b>bold</b> </script><script>alert(2)</script>"))


def test_an_install_that_cannot_be_is_told_from_one_that_failed(tmp_path: Path) -> None:
    made = subprocess.run(["/bin/sh", INSTALL], env={"PATH": str(tmp_path)}, capture_output=True, check=False)
    assert made.returncode == IMPOSSIBLE
