"""The port: what binds eventkit to one broker.

Each sentence in these docstrings is a promise that `eventkit.contract` checks. An adapter holds no policy: whether and
when a message is tried again, and what becomes of it, the core decides and says with a `Settlement`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from eventkit.names import Kind

Start: TypeAlias = Literal["now", "earliest"]


class Address(NamedTuple):
    """Where a message goes, by its logical name. `eventkit.names` makes the broker's own name of it."""

    kind: Kind
    """`topic`; `inbox` of a service; `retry` and `dead` of a group; `reply` of a requesting process."""
    name: str
    physical: str | None = None
    """The broker's own name, where a foreign or existing channel is meant: taken as it is, no namespace."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


class Message(NamedTuple):
    """The wire form. Frozen: a changed one is a copy (`message._replace(...)`)."""

    address: Address
    type: str
    """The wire name; empty on a foreign message that does not say."""
    key: str | None
    """Messages of one key keep their order. None: no order is asked for."""
    headers: Mapping[str, str]
    """By their names in `eventkit.headers`, unescaped. The adapter gives each the form that is usual on its broker."""
    body: bytes | None
    """None is a tombstone, not an empty body. A broker that cannot tell them apart says so in its adapter."""
    due: datetime | None = None
    """Not to be delivered before (UTC). Only ever set on messages to a `retry` address. None: at once."""


class Delivery(NamedTuple):
    """One arrival of a message."""

    message: Message
    position: str
    """Where the broker keeps it: unique in its address and the same at each redelivery."""
    deliveries: int | None
    """Which arrival this is, from 1: it rises at least when the process that had it died. The broker's own count, or
    the adapter's. None where nobody counts: a message that kills its process is then never found out."""
    token: object
    """The adapter's own: what it needs to settle this delivery."""


new = tuple.__new__  # `new(Delivery, (...))`, with all fields, is `Delivery(...)` at half the price


class Done(NamedTuple):
    """It is finished: never deliver it again."""


class Release(NamedTuple):
    """Give it back untried: deliver it again, to anyone of the group. Not an attempt."""


class Move(NamedTuple):
    """Publish the copy, and when the broker has confirmed that (or in one step with it) finish the original."""

    copy: Message


Settlement: TypeAlias = Done | Release | Move

DONE = Done()
RELEASE = Release()


class Provision(StrEnum):
    """What may be done about a missing topic, inbox or group."""

    CREATE = "create"
    """Create what is missing. Ten processes may do so at once."""
    VALIDATE = "validate"
    """Create nothing; raise `NotProvisioned`, naming all that is missing."""
    ASSUME = "assume"
    """Create nothing and ask nothing."""


@dataclass(frozen=True, slots=True)
class Group:
    """Who has read what. Its retry and dead-letter addresses carry its name and belong to it."""

    name: str
    sources: tuple[Address, ...]
    """The topics and the inbox it reads; its retry address is read besides and not named here. A lone `reply`
    address makes a group that lives and dies with its consumer: nothing is kept, settlements mean nothing."""
    start: Start = "now"
    """Where a new group begins: `now` is the moment it was provisioned. An existing group goes on where it was."""

    @property
    def retry(self) -> Address:
        return Address("retry", self.name)

    @property
    def dead(self) -> Address:
        return Address("dead", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a broker can and cannot do, as data. No defaults: an adapter must say each."""

    durable: bool
    """Messages outlive the process that publishes them, and a restart of the broker."""
    start_earliest: bool
    """Can a new group begin with what its topics already hold?"""
    key_order_across_replicas: bool
    """Do messages of one key keep their order while several replicas of a service run?"""
    delivery_count: bool
    """Are the deliveries of a message counted, by the broker or by the adapter?"""
    longest_handler: timedelta | None
    """How long a message may be worked on before the broker gives it to another. None: as long as it takes."""
    settles_in_order: bool
    """Is progress one mark per channel, so that a message settled out of order waits for those before it?"""
    validates_subscriptions: bool
    """Can `Provision.VALIDATE` prove that a group is subscribed to its topics, and not only that both exist?"""
    lists_groups: bool
    """Can the broker say which groups there are, without being given their names?"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the broker that was found will take."""

    message_bytes: int
    """The largest message in bytes, key and headers included."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for a group in one of its sources, in messages. None: the broker cannot say."""

    ready: int | None
    """Not yet delivered."""
    in_flight: int | None
    """Delivered, not settled."""
    oldest: timedelta | None = None
    """The age of the oldest one that is ready."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for a group, in messages. None: the broker cannot say."""

    ready: int | None
    """Not yet delivered, or given back: by whoever died, too, once nobody reads."""
    in_flight: int | None
    """Delivered, not settled. 0 where nobody reads."""
    delayed: int | None
    """In the retry address, waiting to be due."""
    dead: int | None
    """Dead letters."""
    oldest: timedelta | None = None
    """The age of the oldest one that is ready."""
    consumers: int | None = None
    """How many read the group now, in all processes. One that was killed is counted until the broker misses it."""
    sources: Mapping[Address, Waiting] = field(default_factory=dict)
    """The same for each of the group's sources. Empty: the broker keeps what waits in one place."""


@dataclass(frozen=True, slots=True)
class Connection:
    """What an adapter is made from."""

    url: SecretStr | None
    """EVENTKIT_URL. None: the adapter's default, its broker on this machine."""
    namespace: str
    """Prefixes every physical name; empty: no prefix."""
    client: str
    """A name for this process that people see in the broker's own tools: the service's, or the bus's source."""
    settings: BaseSettings | None = None
    """An instance of the adapter's own `settings` class. None: read from the environment."""


class Receive(Protocol):
    """The core's side of a consumer. Called from the event loop the adapter was started in."""

    async def deliveries(self, batch: Sequence[Delivery], /) -> None:
        """Take these over. Returns when there is room for more: this is the backpressure. Never raises."""
        ...

    async def revoked(self, belongs: Callable[[Delivery], bool], needed: Callable[[Delivery], bool] | None, /) -> None:
        """This consumer is about to lose, or has lost, what `belongs` to one channel: finish or drop those deliveries.

        Those that run, or are `needed` because one behind them is settled already, are finished and settled, and where
        the adapter `settles_in_order` all before them, but for those that wait for another attempt or for a circuit;
        the others are dropped without settlement. `needed` None: nothing of it can be settled any more, and only those
        that run are finished. Returns when that is done.
        """
        ...

    def unsettled(self, delivery: Delivery, how: Settlement, error: Exception, /) -> None:
        """This settlement failed, the delivery is still ours: the core asks for it again, later. MessageTooLarge: at
        once, with a copy that says less. LostMessage, of what was to be given back and is no longer on the broker: at
        once, to be moved to the retry address."""
        ...


class Consumer(Protocol):
    """A running subscription of one group."""

    @property
    def error(self) -> Exception | None:
        """Why it no longer consumes; None while it does. It may heal by itself and become None again."""
        ...

    def settle(self, delivery: Delivery, how: Settlement, /) -> None:
        """Finish a delivery. Never blocks and never raises; the adapter gathers settlements into its broker's cheapest
        form. One that this consumer no longer holds is not settled: nothing happens. A failure is told to
        `Receive.unsettled`."""
        ...

    async def flush(self, timeout: float, /) -> None:
        """Returns when the broker has all settlements that were asked for before, so that they hold even if this
        process dies. At most `timeout` seconds; raises the client's own error, or TimeoutError."""
        ...

    def hold(self, at_most: int, /) -> None:
        """From now on at most so many unsettled deliveries at once, instead of the `in_flight` of `consume`. What is
        held already stays ours, and what was asked of the broker may still come; then nothing more does until there is
        room. Never blocks and never raises."""
        ...

    def pause(self) -> None:
        """Deliver nothing new. What was delivered stays ours."""
        ...

    def resume(self) -> None:
        """Deliver again after `pause`."""
        ...

    async def stop(self, timeout: float, /) -> None:
        """No more deliveries; settlements are flushed; what is unsettled is given back. At most `timeout` seconds."""
        ...


class Adapter(Protocol):
    """One connection to one broker. Made without I/O; usable from `start` to `stop`, and again after a new `start`."""

    name: ClassVar[str]
    """As in EVENTKIT_BROKER."""
    settings: ClassVar[type[BaseSettings] | None]
    """Its own settings, read from EVENTKIT_<NAME>__*. None: it has none."""

    def __init__(self, connection: Connection) -> None: ...

    @property
    def capabilities(self) -> Capabilities:
        """An attribute of the class; of the instance, where settings say what can be done."""
        ...

    @property
    def error(self) -> Exception | None:
        """Why the broker cannot be reached now; None while it can, and while not started. It may heal by itself."""
        ...

    async def start(self, timeout: float, /) -> Limits:
        """Connect. Raises the client's own error, or TimeoutError, in `timeout` seconds; then nothing is left open."""
        ...

    async def provision(self, wanted: Collection[Address | Group], how: Provision, /) -> None:
        """Make sure these exist. Idempotent, at any time, from any number of processes. For a group this includes its
        sources' channels, its subscription to them, its inbox, its retry and its dead-letter address. An `inbox`
        address alone exists only if its owner's group was provisioned."""
        ...

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
        """Hand all to the broker together; one answer each, in order: None is confirmed, else why not. In order per
        key. Bounded in time while the broker is away. A message that is refused harms no other."""
        ...

    async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> Consumer:
        """Read a provisioned group, at most `in_flight` unsettled deliveries at once, until `Consumer.hold` says
        another number. A broker that must be asked for each channel by itself may bring one more for each but the
        first, so that none of them waits for another. Returns once live: the next message published is not missed.
        While a delivery is unsettled the adapter keeps its lease."""
        ...

    def browse(self, address: Address, /) -> AsyncIterator[Delivery]:
        """What is in a `dead` (or any other) address now, oldest first. Changes nothing, ends at the end."""
        ...

    def follow(self, address: Address, /) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """What is put into a topic or an inbox from now on, in the order in which it comes there. Entering returns once
        nothing more is missed; the iterator never ends by itself. No group is disturbed, nothing is settled, and
        nothing of it stays on the broker, whatever becomes of this process. It goes on by itself after a lost
        connection; what came meanwhile may be missed, and so may what comes faster than it is taken. Raises
        NotProvisioned."""
        ...

    async def remove(self, deliveries: Sequence[Delivery], /) -> Sequence[Exception | None]:
        """Delete what `browse` gave; one answer each. One that is gone already is no error."""
        ...

    async def measure(self, group: Group, /) -> Backlog:
        """What waits for a group now, and how many read it."""
        ...

    async def groups(self, names: Collection[str] | None = None, /) -> Sequence[Group]:
        """The groups that are there, by name: of these names, or all of the namespace, which only `lists_groups` can
        say; else CapabilityNotSupported. Each with the sources that it reads, as far as the broker tells. A group is
        there as long as its dead-letter address is."""
        ...

    async def disband(self, name: str, /) -> None:
        """Remove a group and all that is its own: its subscriptions, its inbox, its retry and its dead-letter address,
        with what waits there. Topics stay, and no other group loses anything. Raises GroupInUse while anybody reads
        it, and then removes nothing. One that is gone already is no error. The dead-letter address goes last, so that
        a removal that was interrupted can be seen, and repeated."""
        ...

    async def stop(self, timeout: float, /) -> None:
        """Disconnect, within `timeout` seconds, also while the broker is away. Twice is harmless."""
        ...
