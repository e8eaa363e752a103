"""Welcomes who has registered: one event leads to the next.

eventkit run examples.registration.service:service
"""

import logging

from eventkit import Service
from examples.registration.messages import UserRegistered, WelcomeEmailRequested

log = logging.getLogger("welcome")
service = Service("welcome")


@service.handler
async def greet(event: UserRegistered) -> WelcomeEmailRequested:
    # What a handler returns is published after it has succeeded, and before its own message is settled.
    return WelcomeEmailRequested(user_id=event.id, email=event.email, subject=f"Welcome, {event.name}!")


@service.handler
async def send(event: WelcomeEmailRequested) -> None:
    log.info("to %s: %s", event.email, event.subject)
