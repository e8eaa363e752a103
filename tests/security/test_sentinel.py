"""Redis behind a Sentinel, both with TLS, and each with users of its own."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

import eventkit
from eventkit import BrokerUnavailable, Command, PublishError, Service
from eventkit.contract.checks import eventually
from eventkit.testing.brokers import probe
from eventkit.testing.brokers.errors import NotThisWay
from eventkit.testing.brokers.process import Program, Server, free_port
from eventkit.testing.brokers.redis import Redis
from tests.security.conftest import Watch
from tests.security.servers import ADMIN, USER, Papers, redis_users
from tests.security.test_security import refused, works
from tests.wanted import wanted

NAME = "main"
WATCHER = "watcher"
"""The Sentinel's own user."""
Use = Callable[[dict[str, str]], None]


class Ask(Command[str], service="asked"):
    what: str


@dataclass
class Guarded:
    """A primary, a replica and the Sentinel that watches them. All that they say of each other are host names, since
    certificates are for those."""

    papers: Papers
    servers: dict[int, Server]
    sentinel: int
    password: str
    """The Sentinel's own."""

    def environment(self, **changed: str | None) -> dict[str, str]:
        own = {
            "TLS__CA_FILE": str(self.papers.ca),
            "CREDENTIALS__USERNAME": USER,
            "CREDENTIALS__PASSWORD_FILE": str(self.papers.password_file),
            "SENTINEL__USERNAME": WATCHER,
            "SENTINEL__PASSWORD": self.password,
            **changed,
        }
        return {
            "EVENTKIT_BROKER": "redis",
            "EVENTKIT_URL": f"rediss+sentinel://localhost:{self.sentinel}/{NAME}",
            **{f"EVENTKIT_REDIS__{name}": value for name, value in own.items() if value is not None},
        }


def _tls(papers: Papers, port: int) -> dict[str, str]:
    return {
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": str(papers.certificate),
        "tls-key-file": str(papers.key),
        "tls-ca-cert-file": str(papers.ca),
        "tls-auth-clients": "no",
        "tls-replication": "yes",
    }


@pytest.fixture(scope="module")
def guarded(papers: Papers, pytestconfig: pytest.Config) -> Iterator[Guarded]:
    if "redis" not in wanted(pytestconfig):
        pytest.skip("redis is not asked for")
    recipe = Redis()
    try:
        found = recipe.find()
    except NotThisWay as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    ready = probe.encrypted(probe.redis)
    password = f"Posten/{secrets.token_hex(12)}"
    folders: list[Path] = []

    def folder() -> Path:
        folders.append(Path(tempfile.mkdtemp(prefix="eventkit-sentinel-")))
        return folders[-1]

    made = Guarded(papers, {}, free_port(), password)
    try:
        for of in ({}, {"replicaof": "localhost {}"}):
            port, place = free_port(), folder()
            settings = {
                **_tls(papers, port),
                "aclfile": str(redis_users(papers)),
                "masteruser": ADMIN,
                "masterauth": papers.secret,
                "replica-announce-ip": "localhost",
                "repl-diskless-sync-delay": "0",
                **{name: value.format(*made.servers) for name, value in of.items()},
            }
            (program,) = recipe.programs(found, place, settings, print)
            made.servers[port] = Server(str(port), place, [replace(program, port=port, ready=ready)], print)
            made.servers[port].start()
        place = folder()
        lines = {
            "bind": "127.0.0.1",
            "dir": str(place),
            **_tls(papers, made.sentinel),
            "sentinel resolve-hostnames": "yes",
            "sentinel announce-hostnames": "yes",
            f"sentinel monitor {NAME}": f"localhost {next(iter(made.servers))} 1",
            f"sentinel auth-user {NAME}": ADMIN,
            f"sentinel auth-pass {NAME}": papers.secret,
            f"sentinel down-after-milliseconds {NAME}": "1000",
            f"sentinel failover-timeout {NAME}": "4000",
            "user default": "off",
            f"user {WATCHER}": f"on >{password} ~* &* +@all",
        }
        file = place / "sentinel.conf"
        file.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        command = [str(found.path), str(file), "--sentinel"]
        watcher = Server("sentinel", place, [Program("sentinel", command, made.sentinel, ready, seconds=30)], print)
        made.servers[0] = watcher
        watcher.start()
        yield made
    finally:
        for server in made.servers.values():
            server.stop()
        for place in folders:
            shutil.rmtree(place, ignore_errors=True)


def test_each_is_told_its_own_password(guarded: Guarded, use: Use, watch: Watch) -> None:
    watch.secrets.add(guarded.password)
    use(guarded.environment())
    works(watch)


_AT_SENTINEL = r"the Sentinel localhost:\d+, asked as EVENTKIT_REDIS__SENTINEL__"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"SENTINEL__PASSWORD": "Wrong-guess-5"}, _AT_SENTINEL),
        ({"SENTINEL__PASSWORD": None, "SENTINEL__USERNAME": None}, _AT_SENTINEL),
        ({"CREDENTIALS__PASSWORD_FILE": None, "CREDENTIALS__PASSWORD": "Wrong-guess-5"}, "that says: invalid username"),
    ],
    ids=["wrong at the Sentinel", "none at the Sentinel", "wrong at the Redis"],
)
def test_a_wrong_password_is_named(
    changed: dict[str, str | None], says: str, guarded: Guarded, use: Use, watch: Watch
) -> None:
    watch.secrets |= {guarded.password, "Wrong-guess-5"}
    use(guarded.environment(**changed))
    refused(watch, says)


def test_a_sentinel_of_an_unknown_authority_is_refused(guarded: Guarded, use: Use, watch: Watch) -> None:
    watch.secrets.add(guarded.password)
    use(guarded.environment(TLS__CA_FILE=str(guarded.papers.other_ca)))
    refused(watch, r"(?i)certificate.*(issuer|self.signed)")


def test_a_failover_goes_on_with_tls_and_passwords(guarded: Guarded, use: Use, watch: Watch) -> None:
    """The last test: the one that was the primary stays away."""
    watch.secrets.add(guarded.password)
    use(guarded.environment())
    service = Service("asked")

    @service.handler
    async def ask(command: Ask) -> str:
        return command.what

    async def main() -> None:
        async with eventkit.connect() as bus, bus.run(service) as running:
            assert await bus.request(Ask(what="before"), timeout=timedelta(seconds=10)) == "before"
            guarded.servers[next(iter(guarded.servers))].kill()
            await eventually(lambda: not running.health().ok, "health says that it is gone", 10)
            async with asyncio.timeout(30):
                while True:
                    try:
                        assert await bus.request(Ask(what="after"), timeout=timedelta(seconds=5)) == "after"
                    except (PublishError, eventkit.RequestTimeout, BrokerUnavailable) as error:
                        watch.error(error)
                    else:
                        break
            await eventually(lambda: running.health().ok, "health says that it is back", 10)

    asyncio.run(main())
