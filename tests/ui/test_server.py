"""The live view's server on every backend: what it tells, what it does, and whom it turns away."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

import httpx

from eventkit.errors import SettingsError
from eventkit.testing.brokers import Broker
from eventkit.ui import Doors
from tests.ui.shop import PrintTicket, Served, TicketSold, served
from tests.ui.watching import Watching, watching
from tests.wanted import wanted


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", wanted(metafunc.config))


@pytest.fixture
def at(name: str, broker: Callable[[str], Broker]) -> tuple[str, str | None]:
    return name, None if name == "memory" else broker(name).url


def story(told: Callable[[Served, httpx.AsyncClient], Awaitable[None]], *where: Any, **options: Any) -> None:
    async def main() -> None:
        async with (
            served(*where, **options) as page,
            httpx.AsyncClient(base_url=page.address.partition("sign-in")[0], timeout=30) as client,
        ):
            await told(page, client)

    asyncio.run(main())


def deed(client: httpx.AsyncClient, watch: Watching, verb: str, **which: Any) -> Awaitable[httpx.Response]:
    origin = str(client.base_url).rstrip("/")
    headers = {"origin": origin, "x-eventkit-csrf": watch.first["csrf"]}
    return client.post(f"letters/{verb}", json={"group": "seating", **which}, headers=headers)


async def letters(client: httpx.AsyncClient, **which: str) -> list[dict[str, Any]]:
    answer = await client.get("letters", params={"group": "seating", **which})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["letters"]
    return found


def test_what_is_told_and_done(at: tuple[str, str | None]) -> None:
    async def told(page: Served, client: httpx.AsyncClient) -> None:
        async with watching(client) as watch, watching(client) as other:
            await watch.until(lambda: watch.group("seating").get("dead") == 0, "it is measured")
            await page.bus.publish(TicketSold(ticket_id="1", note="ünder <b>"))
            await watch.until(lambda: {row["type"] for row in watch.rows} >= {"TicketSold", "SeatTaken"}, "the tail")
            (row,) = (row for row in watch.rows if row["type"] == "TicketSold")
            assert (row["address"], row["key"], row["source"]) == ("topic:ui.tickets", "1", "ui-test")
            assert '"note": "ünder <b>"' in row["body"]
            assert row["headers"]["ce-id"] == row["id"]
            await watch.until(lambda: watch.stream("TicketSold")["rate"] > 0, "a rate")

            page.shop.go_on.clear()
            for number in range(8):
                await page.bus.publish(TicketSold(ticket_id=f"later {number}"))

            def backlog() -> bool:
                group = watch.group("seating")
                return (group["ready"] or 0) + (group["in_flight"] or 0) >= 7

            if at[0] != "rabbit":  # what a consumer has fetched, RabbitMQ does not count
                await watch.until(backlog, "the backlog rises")
            page.shop.go_on.set()
            await watch.until(lambda: len(page.shop.taken) == 9, "all are handled: the page has taken none")

            for number in range(3):
                await page.bus.publish(TicketSold(ticket_id=f"broken {number}"))
            await page.bus.send(PrintTicket(ticket_id="1"))
            await watch.until(lambda: watch.group("seating")["dead"] == 3, "dead letters are counted")
            if at[0] != "rabbit":  # there it counts in a process that has looked for its delay only after it was used
                await watch.until(lambda: _waits(watch.group("printing")), "a retry waits")
            found = await letters(client)
            assert {letter["key"] for letter in found} == {"broken 0", "broken 1", "broken 2"}
            assert await letters(client) == found, "to look changes nothing"
            assert await letters(client, reason="exhausted") == []
            assert len(await letters(client, reason="gave-up", type="TicketSold")) == 3
            whole = (await client.get("letter", params={"group": "seating", "id": found[0]["id"]})).json()
            assert "Traceback" in whole["error_stack"]
            assert '"ticket_id"' in whole["body"]
            assert whole["headers"]["ek-reason"] == "gave-up"

            page.shop.broken = False
            answer = (await deed(client, watch, "retry", ids=[found[0]["id"]])).json()
            assert answer == {"done": 1, "left": 0, "failures": []}
            await watch.until(lambda: found[0]["key"] in page.shop.taken, "it is tried again")
            assert [letter["id"] for letter in await letters(client)] == [letter["id"] for letter in found[1:]]
            answer = (await deed(client, watch, "discard", ids=[found[1]["id"], "no such one"])).json()
            assert (answer["done"], answer["left"]) == (1, 1)
            assert "no such one" in answer["failures"][0]["error"]
            assert (await deed(client, watch, "discard", all=True)).json()["done"] == 1
            assert await letters(client) == []
            await watch.until(lambda: watch.group("seating")["dead"] == 0, "none is left")
            await other.until(lambda: len(other.rows) == len(watch.rows), "all viewers are told the same")
            assert set(watch.frames[3:]) & set(other.frames), "one frame for all of them"

    story(told, *at)


def test_who_comes_later_sees_what_came_before() -> None:
    async def told(page: Served, client: httpx.AsyncClient) -> None:
        async with watching(client) as watch:
            await page.bus.publish(TicketSold(ticket_id="1"))
            await watch.until(lambda: watch.rows, "it comes")
        async with watching(client) as late:
            assert {row["key"] for row in late.rows} == {"1"}
            assert late.first["run"] == watch.first["run"]

    story(told, "memory", None)


def test_many_messages_are_counted_and_some_are_shown() -> None:
    async def told(page: Served, client: httpx.AsyncClient) -> None:
        async with watching(client) as watch:
            await page.bus.publish_many([TicketSold(ticket_id=str(number)) for number in range(3_000)])
            await watch.until(lambda: watch.stream("SeatTaken")["total"] == 3_000, "all are counted")
            shown = len(watch.rows)
            assert shown < 3_000, "nobody could read them"
            await page.bus.send(PrintTicket(ticket_id="rare"))
            await watch.until(lambda: watch.rows[-1]["type"] == "PrintTicket", "a rare one is shown")
        async with watching(client) as late:
            assert len(late.first["rows"]) <= 500
            assert late.first["missed"] + shown >= 6_000 - 500

    story(told, "memory", None)


def test_a_large_body_is_not_kept() -> None:
    async def told(page: Served, client: httpx.AsyncClient) -> None:
        async with watching(client) as watch:
            await page.bus.publish(TicketSold(ticket_id="1", note="x" * 100_000))
            await page.bus.publish(TicketSold(ticket_id="2", note="x" * 30_000))
            await watch.until(lambda: {"1", "2"} <= {row["key"] for row in watch.rows}, "they come")
            bodies = {row["key"]: row["body"] for row in watch.rows if row["type"] == "TicketSold"}
            assert "too many for this page" in bodies["1"]
            assert "[cut: " in bodies["2"]
            assert len(bodies["2"]) < 20_000

    story(told, "memory", None)


def test_what_is_redacted_is_nowhere() -> None:
    async def told(page: Served, client: httpx.AsyncClient) -> None:
        async with watching(client) as watch:
            await page.bus.publish(TicketSold(ticket_id="broken", card_number="4000-1234"))
            await watch.until(lambda: watch.rows and watch.group("seating").get("dead") == 1, "it comes, and is dead")
            (letter,) = await letters(client)
            whole = (await client.get("letter", params={"group": "seating", "id": letter["id"]})).json()
            assert '"card_number": "***"' in watch.rows[0]["body"]
            assert '"card_number": "***"' in whole["body"]
            everything = f"{watch.frames}{letter}{whole}"
            assert "4000-1234" not in everything
            assert "no seat for broken, paid with ***" in everything
            assert (await deed(client, watch, "retry", ids=[letter["id"]])).json()["done"] == 1  # as it was published

    story(told, "memory", None, names="card_number")


def test_nothing_is_changed_but_from_the_page_itself() -> None:
    async def told(page: Served, client: httpx.AsyncClient) -> None:
        origin = page.address.rstrip("/")
        async with watching(client) as watch:
            await page.bus.publish(TicketSold(ticket_id="broken"))
            await watch.until(lambda: watch.group("seating").get("dead") == 1, "a dead letter")
            good = {"origin": origin, "x-eventkit-csrf": watch.first["csrf"]}
            everything = {"group": "seating", "all": True}
            for changed in (
                {"origin": None},
                {"origin": "null"},
                {"origin": "http://evil.example"},
                {"origin": "http://localhost:1"},
                {"origin": origin.replace("127.0.0.1", "localhost")},
                {"x-eventkit-csrf": None},
                {"x-eventkit-csrf": "guessed"},
            ):
                headers = {name: value for name, value in {**good, **changed}.items() if value is not None}
                answer = await client.post("letters/discard", json=everything, headers=headers)
                assert answer.status_code == 403, changed
            form = {**good, "content-type": "text/plain"}
            assert (await client.post("letters/discard", content=b'{"group": 1}', headers=form)).status_code == 400
            assert (await client.get("letters/discard")).status_code == 405
            assert (await deed(client, watch, "burn", all=True)).status_code == 404
            assert (await deed(client, watch, "discard")).status_code == 400
            assert (await deed(client, watch, "discard", all=True, reason="gave-up")).status_code == 400
            assert (await deed(client, watch, "discard", all=True, group="nobody")).status_code == 404
            assert (await deed(client, watch, "discard", ids=["x" * 300_000])).status_code == 400
            assert len(await letters(client)) == 1
            assert (await client.post("letters/discard", json=everything, headers=good)).json()["done"] == 1

    story(told, "memory", None)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1234", 200),
        ("LOCALHOST.", 200),
        ("[::1]:8091", 200),
        ("192.0.2.7", 200),
        ("events.example", 200),
        ("evil.example", 403),
        ("evil.example:8091", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("", 403),
    ],
)
def test_names_that_anyone_can_point_here_are_turned_away(host: str, status: int) -> None:
    """DNS rebinding: the browser believes that the page of evil.example is asked."""

    async def told(page: Served, client: httpx.AsyncClient) -> None:
        for path in ("", "events.none", "ui.js"):
            answer = await client.get(path, headers={"host": host})
            assert answer.status_code == (404 if path == "events.none" and status == 200 else status)

    story(told, "memory", None, doors=Doors(names=["events.example"]))


def test_elsewhere_a_token_is_asked_for() -> None:
    doors = Doors("0.0.0.0")
    assert doors.token is not None

    async def told(page: Served, client: httpx.AsyncClient) -> None:
        assert page.address.endswith(f"/sign-in#{doors.token}")
        base = f"http://127.0.0.1:{client.base_url.port}/"
        async with httpx.AsyncClient(base_url=base, timeout=30) as here:
            for path in ("events", "letters?group=seating", "letter?group=seating&id=1", "ui.js"):
                assert (await here.get(path)).status_code == 401, path
            turned = await here.get("")
            assert (turned.status_code, turned.headers["location"]) == (303, "sign-in")
            assert (await here.get("sign-in")).status_code == 200
            assert doors.token not in (await here.get("sign-in")).text
            for path in re.findall(r'(?:src|href)="([\w.-]+)"', (await here.get("sign-in")).text):
                assert (await here.get(path)).status_code == 200, f"{path}: the page to sign in with needs it"
            own = {"origin": base.rstrip("/")}
            assert (await here.post("sign-in", json={"token": doors.token})).status_code == 403, "of no origin"
            for wrong in ({"token": "wrong"}, {"token": "\u00fc"}, {"token": ""}):
                assert (await here.post("sign-in", json=wrong, headers=own)).status_code == 403
            assert (await here.post("sign-in", json=[], headers=own)).status_code == 400
            assert (
                await here.get("", headers={"cookie": f"eventkit-ui-{client.base_url.port}=wrong"})
            ).status_code == 303
            answer = await here.post("sign-in", json={"token": doors.token}, headers=own)
            assert answer.status_code == 200
            said = answer.headers["set-cookie"]
            assert "HttpOnly" in said
            assert "SameSite=strict" in said
            assert doors.token not in said
            assert (await here.get("")).status_code == 200
            async with watching(here) as watch:
                assert watch.first["csrf"]

    story(told, "memory", None, doors=doors)


def test_read_only() -> None:
    async def told(page: Served, client: httpx.AsyncClient) -> None:
        async with watching(client) as watch:
            answer = await deed(client, watch, "discard", all=True)
            assert answer.status_code == 403
            assert "--read-only" in answer.json()["error"]
            assert 'data-mode="read-only"' in (await client.get("")).text

    story(told, "memory", None, doors=Doors(read_only=True))


def test_what_a_browser_may_do_with_it() -> None:
    async def told(page: Served, client: httpx.AsyncClient) -> None:
        for path in ("", "ui.js", "letters?group=nobody", "nothing"):
            headers = (await client.get(path)).headers
            policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["connect-src"] == "'self'"
            assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert "access-control-allow-origin" not in headers

    story(told, "memory", None)


def test_a_short_token_is_refused() -> None:
    with pytest.raises(SettingsError, match="at least 16 characters"):
        Doors(token="short")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_on_loopback_no_token_is_asked_for(host: str) -> None:
    assert Doors(host).token is None
    assert Doors(host, token="x" * 16).token == "x" * 16


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "events.example", ""])
def test_elsewhere_one_is(host: str) -> None:
    assert len(Doors(host).token or "") >= 24


def _waits(group: dict[str, Any]) -> bool:
    """On Kafka a replica holds what waits, and it counts as in flight."""
    return bool((group["delayed"] or 0) + (group["in_flight"] or 0))
