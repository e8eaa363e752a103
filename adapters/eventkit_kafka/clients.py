"""aiokafka's clients, made from one set of options, and ended in bounded time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]
from aiokafka.client import AIOKafkaClient  # type: ignore[import-untyped]
from aiokafka.conn import collect_hosts, create_conn  # type: ignore[import-untyped]
from aiokafka.errors import KafkaTimeoutError  # type: ignore[import-untyped]
from aiokafka.protocol.commit import OffsetCommitRequest  # type: ignore[import-untyped]
from faststream.kafka.security import parse_security
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from eventkit.cancelling import unbroken
from eventkit.errors import SettingsError
from eventkit_kafka.quiet import quiet
from eventkit_kafka.settings import KafkaSettings, Url

log = logging.getLogger("eventkit.kafka")

_REQUEST_MS = 10_000
"""How long one request may take. Also bounds how long the broker waits for its replicas."""
_BACKOFF_MS = 100
_MOMENT = 1.0
"""Seconds that a start which is given up has to come to its end."""
_SELDOM_MS = 300_000
_KEPT_MS = 100 * 365 * 24 * 3_600_000
_MECHANISMS = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}


class Clients:
    """Makes clients. Reads files of secrets, but opens nothing by itself."""

    def __init__(
        self, url: Url, settings: KafkaSettings, client: str, adopted: Mapping[str, Any] | None = None
    ) -> None:
        """`adopted`: the options of a FastStream broker object, whose servers and security take the URL's place."""
        servers = url.servers if adopted is None else _collected(adopted["bootstrap_servers"])
        self.servers = list(servers)
        quiet()
        security = parse_security(_security(url, settings)) if adopted is None else _security_of(adopted)
        self._options: dict[str, Any] = {
            "bootstrap_servers": self.servers,
            "client_id": client,
            "request_timeout_ms": _REQUEST_MS,
            "retry_backoff_ms": _BACKOFF_MS,
            "metadata_max_age_ms": int(settings.metadata_age.total_seconds() * 1000),
            **security,
        }

    async def probe(self) -> None:
        """Can any broker be reached with these credentials? Raises the last one's own error."""
        options = {
            name: value
            for name, value in self._options.items()
            if name not in ("bootstrap_servers", "retry_backoff_ms", "metadata_max_age_ms")
        }
        failure: Exception | None = None
        for host, port, _ in collect_hosts(self.servers):
            try:
                connection = await create_conn(host, port, **options)
            except Exception as error:  # noqa: BLE001 the next one may answer
                failure = error
            else:
                connection.close()
                return
        assert failure is not None
        raise failure

    def admin(self) -> Any:
        """It refreshes, for its own use, what it knows of all topics: as seldom as aiokafka has it."""
        return AIOKafkaAdminClient(**{**self._options, "metadata_max_age_ms": _SELDOM_MS})

    def producer(self) -> Any:
        """Idempotent: what it sends again by itself is written once."""
        return AIOKafkaProducer(acks="all", enable_idempotence=True, linger_ms=0, **self._options)

    def connection(self) -> Any:
        """Connections alone, to be bootstrapped."""
        return AIOKafkaClient(**self._options)

    def consumer(self, **options: Any) -> Any:
        """A consumer; without `group_id` it commits nothing. What a transaction took back is never read."""
        return AIOKafkaConsumer(
            enable_auto_commit=False, isolation_level="read_committed", **{**self._options, **options}
        )


def keep_commits(consumer: Any) -> None:
    """What is committed is kept until its group or its topic is deleted. A commit may say for how long; aiokafka says
    nothing, and the broker forgets the group when nobody has read for a week. For a consumer that was started."""
    coordinator = consumer._coordinator  # noqa: SLF001 the only place where it can be said
    send = coordinator._send_req  # noqa: SLF001

    def kept(request: Any) -> Awaitable[Any]:
        if isinstance(request, OffsetCommitRequest):
            request._retention_time = _KEPT_MS  # noqa: SLF001
        return cast("Awaitable[Any]", send(request))

    coordinator._send_req = kept  # noqa: SLF001


def hear_commits(consumer: Any) -> None:
    """A commit that whoever asked for it no longer waits for goes on inside aiokafka; what it dies of is heard here, or
    asyncio would write it down as an exception that nobody retrieved. For a consumer that was started."""
    coordinator = consumer._coordinator  # noqa: SLF001 the only place where it can be heard
    commit = coordinator._do_commit_offsets  # noqa: SLF001

    def heard(*arguments: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(commit(*arguments))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    coordinator._do_commit_offsets = heard  # noqa: SLF001


def _collected(servers: str | Iterable[str]) -> Iterable[str]:
    """Bootstrap servers as aiokafka takes them: one text, or several."""
    return servers.split(",") if isinstance(servers, str) else servers


def _security_of(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name.startswith(("security_", "ssl_", "sasl_"))}


def _security(url: Url, settings: KafkaSettings) -> BaseSecurity:
    encrypted = url.encrypted if settings.tls.enabled is None else settings.tls.enabled
    context = settings.tls.context("EVENTKIT_KAFKA__TLS") if encrypted else None
    username = settings.credentials.username or url.username
    if username is None:
        return BaseSecurity(ssl_context=context, use_ssl=encrypted)
    password = settings.credentials.secret("EVENTKIT_KAFKA__CREDENTIALS") or url.password
    if password is None:
        raise SettingsError("Kafka: there is a username but no password (EVENTKIT_KAFKA__CREDENTIALS__PASSWORD)")
    return _MECHANISMS[settings.sasl](username, password, ssl_context=context, use_ssl=encrypted)


async def begin(start: Callable[[], Awaitable[None]]) -> None:
    """Start a client. aiokafka loses the connection that it makes first, and it stays open, where a start is cut off
    before that has answered: so one that is given up has a moment yet."""
    starting = asyncio.ensure_future(start())
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        try:
            await asyncio.wait([starting], timeout=_MOMENT)
        finally:  # it is given up once more, perhaps
            await _cancel([starting])
        raise


async def end(what: str, stop: Callable[[], Awaitable[None]], seconds: float) -> bool:
    """Stop a client, in `seconds` at most. False: it did not end in time."""
    try:
        async with asyncio.timeout(seconds):
            await unbroken(stop())
    except TimeoutError:
        log.debug("the %s did not end within %g s", what, seconds)
        return False
    except Exception as error:  # noqa: BLE001 it is being ended: nothing is left to do about it
        log.debug("the %s did not end cleanly: %r", what, error)
        return False
    return True


async def end_producer(producer: Any, seconds: float) -> None:
    """Let a producer send what it holds, then end it; what is unsent after `seconds` is dropped."""
    if not await end("producer", producer.stop, seconds):
        # An idempotent producer waits for its broker for ever, and its stop() with it: end its parts.
        sender = producer._sender  # noqa: SLF001 there is no public way
        if sender.sender_task is not None:
            await _cancel([sender.sender_task])
        await end("producer's connections", producer.client.close, 1.0)
        _answer_unsent(producer._message_accumulator)  # noqa: SLF001


def _answer_unsent(accumulator: Any) -> None:
    """Where its task was cancelled, aiokafka leaves whoever waits for a batch waiting for ever."""
    queued = [batch for batches in accumulator._batches.values() for batch in batches]  # noqa: SLF001
    for batch in (*queued, *accumulator._pending_batches):  # noqa: SLF001
        if not batch.future.done():
            batch.future.set_exception(KafkaTimeoutError())
            batch.future.exception()  # or it would be logged where nobody waits for it any more


async def end_consumer(consumer: Any, seconds: float) -> None:
    """Leave the group and end a consumer."""
    if not await end("consumer", consumer.stop, seconds):
        # Cut short, or where one part failed, it leaves the others running: for ever.
        await _cancel(_parts(consumer))
        await end("consumer's connections", consumer._client.close, 1.0)  # noqa: SLF001 there is no public way


def _parts(consumer: Any) -> Sequence[asyncio.Task[Any]]:
    """What still runs of a consumer."""
    coordinator, fetcher = consumer._coordinator, consumer._fetcher  # noqa: SLF001
    names = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task")
    tasks = [getattr(coordinator, name, None) for name in names]
    if fetcher is not None:
        tasks += [fetcher._fetch_task, *fetcher._pending_tasks]  # noqa: SLF001
    return [task for task in tasks if task is not None and not task.done()]


async def _cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        done, _ = await asyncio.wait(tasks, timeout=1.0)
        for task in done:
            _ = task.cancelled() or task.exception()  # seen, or asyncio would write it down
