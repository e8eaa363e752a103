"""eventkit in a FastAPI app: a bus by `Depends`, services beside the endpoints, health and the AsyncAPI document.

```python
app = FastAPI(lifespan=eventkit.fastapi.lifespan(shipping))
app.include_router(eventkit.fastapi.router())

Bus = Annotated[eventkit.Bus, Depends(eventkit.fastapi.bus)]

@app.post("/orders")
async def place(order: Order, bus: Bus) -> None:
    await bus.publish(OrderPlaced(...))
```

Needs the extra `fastapi`. In tests, `app.dependency_overrides[eventkit.fastapi.bus]` puts another bus in its place.
"""

from __future__ import annotations

from typing import Any

from eventkit import starlette
from eventkit.bus import Bus
from eventkit.health import Health
from eventkit.starlette import lifespan

try:
    from fastapi import APIRouter
    from starlette.requests import HTTPConnection
except ImportError as error:
    raise ImportError(
        f"eventkit.fastapi needs FastAPI ({error}): pip install 'faststream-eventkit[fastapi]'"
    ) from error

__all__ = ["bus", "correlation_id", "health", "lifespan", "router"]


# async, so that FastAPI calls them where the request is, and not in a thread
async def bus(connection: HTTPConnection) -> Bus:
    """The app's bus, for one request: what is published through it carries the request's correlation id and trace."""
    return starlette.bus(connection)


async def correlation_id(connection: HTTPConnection) -> str:
    """The correlation id of the request: see `eventkit.starlette.correlation_id`."""
    return starlette.correlation_id(connection)


async def health(connection: HTTPConnection) -> Health:
    """Whether all groups of the app's services consume."""
    return starlette.health(connection)


def router(
    *,
    health: str | None = "/health",
    asyncapi: str | None = "/asyncapi",
    metrics: str | None = "/metrics",
    **document: Any,
) -> APIRouter:
    """Health, metrics and AsyncAPI beside the app's own routes and its OpenAPI: `app.include_router(router())`.

    Arguments as for `eventkit.starlette.routes`.
    """
    return APIRouter(routes=starlette.routes(health=health, asyncapi=asyncapi, metrics=metrics, **document))
