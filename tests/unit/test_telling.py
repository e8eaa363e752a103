"""What the log says of a group, beyond one line for each thing that happens."""

from __future__ import annotations

import logging

import pytest

from eventkit.adapter import Address, Delivery, Message
from eventkit.copies import Reason
from eventkit.instruments import Place
from eventkit.redacting import Redactor
from eventkit.telling import Telling

MESSAGE = Message(Address("topic", "orders"), "OrderPlaced", "7", {}, b"{}")


@pytest.mark.parametrize(("broker", "times"), [("redis", 1), ("memory", 0)])
def test_who_reads_of_the_first_dead_letter_is_told_what_to_do(
    broker: str, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    telling = Telling(Place(broker, "shop", "shop.audit"), None, None, Redactor())
    delivery = Delivery(MESSAGE, "1", 1, None)
    with caplog.at_level(logging.INFO, "eventkit"):
        for _ in range(2):
            telling.dead(None, delivery, MESSAGE, Reason.GAVE_UP, ValueError("no"), 1)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert said == times * [
        "shop.audit: what it gives up on waits for a person: eventkit dead-letters list --group shop.audit"
    ]
