"""eventkit in a FastStream app: services beside its own subscribers, under `faststream run`.

```python
broker = RedisBroker("redis://localhost:6379")
app = FastStream(broker, lifespan=eventkit.faststream.lifespan(shipping, broker=broker))
```

```
faststream run module:app
```
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from eventkit import bus as buses
from eventkit import connecting
from eventkit.adopting import BrokerObject
from eventkit.service import Service

__all__ = ["lifespan"]

_NAME = "eventkit"


def lifespan(
    *services: Service,
    broker: BrokerObject | None = None,
    connect: Callable[[], buses.Bus] | None = None,
    around: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
) -> Callable[[], AbstractAsyncContextManager[None]]:
    """A lifespan for the FastStream app: opens a bus, runs these services beside its own subscribers, drains them.

    `broker` is the app's broker object: its connection settings are used, and its subscribers may take the bus by
    `Annotated[eventkit.Bus, faststream.Context("eventkit")]`. Without it the environment says where, or `connect` does.
    `around` is the app's own lifespan, entered before the bus and left after it.
    """

    @asynccontextmanager
    async def run() -> AsyncIterator[None]:
        name = services[0].name if len(services) == 1 else None
        made = connect() if connect is not None else connecting.connect(broker, service=name)
        async with _entered(around), made as bus:
            context = getattr(broker, "context", None)
            if context is not None:
                context.set_global(_NAME, bus)
            if not services:
                yield
                return
            async with bus.run(*services):
                yield

    return run


@asynccontextmanager
async def _entered(around: Callable[[], AbstractAsyncContextManager[Any]] | None) -> AsyncIterator[None]:
    if around is None:
        yield
        return
    async with around():
        yield
