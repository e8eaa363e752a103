"""An adapter that refuses, for a while, what goes to some addresses or is to be removed: a broker in trouble."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import cast

from eventkit.adapter import (
    Adapter,
    Address,
    Backlog,
    Consumer,
    Delivery,
    Group,
    Limits,
    Message,
    Move,
    Provision,
    Receive,
    Settlement,
)


class Refused(ConnectionError):
    """What the broker in trouble says."""


class Refusing:
    """Like the adapter that it is made from, but for what it refuses just now."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self.refuses: Callable[[Address], bool] = lambda address: False
        """Nothing gets to these, neither by `publish` nor by a `Move`."""
        self.refuses_removal = False
        """Nothing is removed."""
        self.settles = True
        """False: what is settled is not: all is held until the end, and then given back."""
        self.count = 0
        """How often it has refused."""
        # what an adapter says about itself stays true
        self.name = adapter.name
        self.capabilities = adapter.capabilities
        self.settings = adapter.settings

    @property
    def adapter(self) -> Adapter:
        """Itself, for a bus: it has all that an adapter has but the way in which adapters are made."""
        return cast("Adapter", self)

    @property
    def error(self) -> Exception | None:
        return self._adapter.error

    async def start(self, timeout: float, /) -> Limits:
        return await self._adapter.start(timeout)

    async def provision(self, wanted: Collection[Address | Group], how: Provision, /) -> None:
        await self._adapter.provision(wanted, how)

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
        let_through = [message for message in messages if not self.refuses(message.address)]
        answers = iter(await self._adapter.publish(let_through) if let_through else ())
        return [self._no(m.address) if self.refuses(m.address) else next(answers) for m in messages]

    async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> Consumer:
        consumer = await self._adapter.consume(group, receive, in_flight=in_flight)
        return _RefusingConsumer(consumer, receive, self._said, lambda: self.settles)

    def browse(self, address: Address, /) -> AsyncIterator[Delivery]:
        return self._adapter.browse(address)

    def follow(self, address: Address, /) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return self._adapter.follow(address)

    async def remove(self, deliveries: Sequence[Delivery], /) -> Sequence[Exception | None]:
        if self.refuses_removal:
            return [self._no(delivery.message.address) for delivery in deliveries]
        return await self._adapter.remove(deliveries)

    async def measure(self, group: Group, /) -> Backlog:
        return await self._adapter.measure(group)

    async def groups(self, names: Collection[str] | None = None, /) -> Sequence[Group]:
        return await self._adapter.groups(names)

    async def disband(self, name: str, /) -> None:
        await self._adapter.disband(name)

    async def stop(self, timeout: float, /) -> None:
        await self._adapter.stop(timeout)

    def _said(self, how: Settlement) -> Exception | None:
        return self._no(how.copy.address) if isinstance(how, Move) and self.refuses(how.copy.address) else None

    def _no(self, address: Address) -> Exception:
        self.count += 1
        return Refused(f"{address} takes nothing just now")


class _RefusingConsumer:
    def __init__(
        self,
        consumer: Consumer,
        receive: Receive,
        said: Callable[[Settlement], Exception | None],
        settles: Callable[[], bool],
    ) -> None:
        self._settles = settles
        self._consumer = consumer
        self._receive = receive
        self._said = said

    @property
    def error(self) -> Exception | None:
        return self._consumer.error

    def settle(self, delivery: Delivery, how: Settlement, /) -> None:
        error = self._said(how)
        if not self._settles():
            return
        if error is None:
            self._consumer.settle(delivery, how)
        else:
            self._receive.unsettled(delivery, how, error)

    async def flush(self, timeout: float, /) -> None:
        await self._consumer.flush(timeout)

    def hold(self, at_most: int, /) -> None:
        self._consumer.hold(at_most)

    def pause(self) -> None:
        self._consumer.pause()

    def resume(self) -> None:
        self._consumer.resume()

    async def stop(self, timeout: float, /) -> None:
        await self._consumer.stop(timeout)
