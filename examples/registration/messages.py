"""What the producer and the service say to each other."""

from datetime import datetime

from eventkit import Event


class UserRegistered(Event, topic="users", key="id"):
    id: int
    name: str
    email: str
    registered_at: datetime


class WelcomeEmailRequested(Event, topic="emails", key="user_id"):
    user_id: int
    email: str
    subject: str
