"""TLS, users and rights on real brokers, by settings of the environment alone. What is wrong is said, and no secret."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

import eventkit
from eventkit import BrokerUnavailable, Command, Event, PublishError, Retry, Service
from eventkit.cli import app
from eventkit.contract.checks import eventually
from eventkit.testing.brokers import provide
from tests.security.conftest import Watch
from tests.security.servers import POOR, Papers, Secured, nats_settings
from tests.security.signed import Operator

Give = Callable[[str], Secured]
SOON = 8.0
"""Seconds within which it is said what is wrong."""
NAMES = ("redis", "nats", "rabbit", "kafka")


class Ordered(Event, topic="orders"):
    number: int


class Price(Command[int], service="shop"):
    number: int


def _shop(seen: list[int]) -> Service:
    service = Service("shop", retry=Retry(attempts=1))

    @service.handler
    async def ordered(event: Ordered) -> None:
        seen.append(event.number)
        if event.number < 0:
            raise ValueError("no such number")

    @service.handler
    async def price(command: Price) -> int:
        return command.number

    return service


def works(watch: Watch) -> None:
    """All goes through: events, commands, requests, dead letters."""

    async def main() -> None:
        seen: list[int] = []
        bus = eventkit.connect()
        watch.text(bus, bus.adapter, vars(bus))
        async with bus, bus.run(_shop(seen)) as running:
            await bus.publish(Ordered(number=1))
            assert await bus.request(Price(number=7), timeout=timedelta(seconds=10)) == 7
            await bus.publish(Ordered(number=-1))
            await eventually(lambda: sorted(seen) == [-1, 1], "both are handled")
            await eventually(lambda: running.counts["shop"].dead == 1, "one is a dead letter")
            letters: list[Any] = []
            for _ in range(100):
                letters = [letter async for letter in bus.dead_letters("shop").list()]
                if letters:
                    break
                await asyncio.sleep(0.05)
            assert len(letters) == 1
            watch.text(*letters, running.health(), bus.health(), bus.adapter)

    asyncio.run(main())


def refused(watch: Watch, says: str) -> None:
    """A bus cannot be opened, and it is said soon why."""

    async def main() -> None:
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match=says) as caught:
            async with eventkit.connect():
                pass
        watch.error(caught.value)
        assert time.monotonic() - began < SOON, f"that was said after {time.monotonic() - began:.1f} s"

    asyncio.run(main())


@pytest.mark.parametrize("name", NAMES)
def test_all_works_by_settings_from_the_environment(
    name: str, secured: Give, use: Callable[[dict[str, str]], None], watch: Watch
) -> None:
    use(secured(name).environment())
    works(watch)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_kafka_takes_scram(mechanism: str, secured: Give, use: Callable[[dict[str, str]], None], watch: Watch) -> None:
    use(secured("kafka").environment(SASL=mechanism))
    works(watch)
    use(secured("kafka").environment(SASL=mechanism, CREDENTIALS__PASSWORD_FILE=None, CREDENTIALS__PASSWORD="nothing"))
    refused(watch, r"(?i)authentication")


@pytest.mark.parametrize("name", NAMES)
def test_a_broker_of_an_unknown_authority_is_refused(
    name: str, secured: Give, use: Callable[[dict[str, str]], None], watch: Watch
) -> None:
    found = secured(name)
    use(found.environment(TLS__CA_FILE=str(found.papers.other_ca)))
    refused(watch, r"(?i)certificate.*(issuer|self.signed)")


@pytest.mark.parametrize("name", NAMES)
def test_a_broker_of_another_name_is_refused(
    name: str, secured: Give, use: Callable[[dict[str, str]], None], watch: Watch
) -> None:
    use(secured(name).environment(host="127.0.0.1"))
    refused(watch, r"(?i)(certificate|hostname).*127\.0\.0\.1")


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_password_is_named(
    name: str, secured: Give, use: Callable[[dict[str, str]], None], watch: Watch
) -> None:
    watch.secrets.add("Wrong-guess-1")
    use(secured(name).environment(CREDENTIALS__PASSWORD_FILE=None, CREDENTIALS__PASSWORD="Wrong-guess-1"))
    refused(watch, r"(?i)(auth|access_refused|invalid username|login)")


@pytest.mark.parametrize("name", NAMES)
def test_a_password_in_the_url_is_not_told(
    name: str, secured: Give, use: Callable[[dict[str, str]], None], watch: Watch, papers: Papers
) -> None:
    environment = secured(name).environment(CREDENTIALS__PASSWORD_FILE=None, CREDENTIALS__USERNAME=None)
    scheme, _, rest = environment["EVENTKIT_URL"].partition("://")
    watch.secrets.add(papers.secret.replace("/", "%2F"))
    for password, act in ((papers.secret, works), ("Wrong/guess-2", lambda watch: refused(watch, "."))):
        watch.secrets |= {"Wrong/guess-2", "Wrong%2Fguess-2"}
        use({**environment, "EVENTKIT_URL": f"{scheme}://shop:{password.replace('/', '%2F')}@{rest}"})
        act(watch)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_right_is_named(
    name: str, secured: Give, use: Callable[[dict[str, str]], None], watch: Watch
) -> None:
    use(secured(name).environment(user=POOR))

    async def main() -> None:
        says = r"(?i)(permission|access|authoriz)"
        try:
            async with eventkit.connect() as bus:
                for act in (bus.publish(Ordered(number=1)), bus.run(_shop([])).__aenter__()):
                    began = time.monotonic()
                    with pytest.raises((PublishError, BrokerUnavailable), match=says) as caught:
                        await act
                    watch.error(caught.value)
                    assert time.monotonic() - began < SOON, f"that was said after {time.monotonic() - began:.1f} s"
        except BrokerUnavailable as error:  # some brokers say it already to the first question
            watch.error(error)
            assert re.search(says, str(error)), error  # noqa: PT017

    asyncio.run(main())


@pytest.mark.parametrize("name", NAMES)
def test_the_doctor_tells_what_is_wrong_and_no_secret(
    name: str, secured: Give, use: Callable[[dict[str, str]], None], watch: Watch
) -> None:
    watch.secrets.add("Wrong-guess-4")
    for changed, code in (({}, 0), ({"CREDENTIALS__PASSWORD_FILE": None, "CREDENTIALS__PASSWORD": "Wrong-guess-4"}, 1)):
        use(secured(name).environment(**changed))
        said = CliRunner().invoke(app, ["doctor", *(["--rights"] if not changed else [])])
        watch.text(said.output)
        assert said.exit_code == code, said.output


def test_nats_takes_a_token(use: Callable[[dict[str, str]], None], watch: Watch, papers: Papers) -> None:
    with provide("nats", settings=nats_settings(papers, f'{{ token: "{papers.secret}" }}')) as broker:
        port = broker.url.rpartition(":")[2]
        environment = {
            "EVENTKIT_BROKER": "nats",
            "EVENTKIT_URL": f"tls://localhost:{port}",
            "EVENTKIT_NATS__TLS__CA_FILE": str(papers.ca),
        }
        use({**environment, "EVENTKIT_NATS__CREDENTIALS__TOKEN": papers.secret})
        works(watch)
        watch.secrets.add("Wrong-guess-3")
        use({**environment, "EVENTKIT_NATS__CREDENTIALS__TOKEN": "Wrong-guess-3"})
        refused(watch, r"(?i)authoriz")


def test_nats_takes_an_nkey(use: Callable[[dict[str, str]], None], watch: Watch, papers: Papers) -> None:
    import nkeys

    seeds = [nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER) for _ in range(2)]
    files = [papers.folder / f"{number}.nk" for number in range(2)]
    for file, seed in zip(files, seeds, strict=True):
        file.write_bytes(seed)
        watch.secrets.add(seed.decode())
    public = nkeys.from_seed(bytearray(seeds[0])).public_key.decode()
    with provide("nats", settings=nats_settings(papers, f'{{ users: [ {{ nkey: "{public}" }} ] }}')) as broker:
        port = broker.url.rpartition(":")[2]
        environment = {
            "EVENTKIT_BROKER": "nats",
            "EVENTKIT_URL": f"tls://localhost:{port}",
            "EVENTKIT_NATS__TLS__CA_FILE": str(papers.ca),
        }
        use({**environment, "EVENTKIT_NATS__CREDENTIALS__NKEY_SEED_FILE": str(files[0])})
        works(watch)
        use({**environment, "EVENTKIT_NATS__CREDENTIALS__NKEY_SEED_FILE": str(files[1])})
        refused(watch, r"(?i)authoriz")


def test_nats_takes_a_credentials_file(use: Callable[[dict[str, str]], None], watch: Watch, papers: Papers) -> None:
    operator = Operator()
    files = [papers.folder / "right.creds", papers.folder / "forged.creds"]
    for file, forged in zip(files, (False, True), strict=True):
        text, seed = operator.credentials(forged=forged)
        file.write_text(text)
        watch.secrets.add(seed)
    settings = {"tls": nats_settings(papers, "")["tls"], **operator.settings()}
    with provide("nats", settings=settings) as broker:
        environment = {
            "EVENTKIT_BROKER": "nats",
            "EVENTKIT_URL": f"tls://localhost:{broker.url.rpartition(':')[2]}",
            "EVENTKIT_NATS__TLS__CA_FILE": str(papers.ca),
        }
        use({**environment, "EVENTKIT_NATS__CREDENTIALS__CREDS_FILE": str(files[0])})
        works(watch)
        use({**environment, "EVENTKIT_NATS__CREDENTIALS__CREDS_FILE": str(files[1])})
        refused(watch, r"(?i)authoriz")
