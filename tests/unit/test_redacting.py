"""What is hidden where a payload is shown, and what is not."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, Field, SecretStr, field_serializer

from eventkit import Event
from eventkit import headers as h
from eventkit.adapter import Address, Delivery, Message
from eventkit.errors import SettingsError
from eventkit.letter import read as read_letter
from eventkit.redacting import HIDDEN, Redactor, read
from eventkit.wire import JSON_SERIALIZER

CARD = "4111111111111111"


def message(
    body: object, *, key: str | None = None, headers: dict[str, str] | None = None, type_: str = "Paid"
) -> Message:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    about = {h.ID: "0190-1", h.TYPE: type_, h.CONTENT_TYPE: "application/json", **(headers or {})}
    return Message(Address("topic", "payments"), type_, key, about, encoded, None)


def shown(redactor: Redactor, body: object) -> object:
    return json.loads(redactor.shown(message(body)).body or b"")


def test_fields_are_hidden_at_any_depth_however_their_names_are_written() -> None:
    body = {"id": 1, "cardNumber": CARD, "all": [{"CARD-NUMBER": [CARD]}, {"card_number_kind": "visa"}]}
    expected = {"id": 1, "cardNumber": HIDDEN, "all": [{"CARD-NUMBER": HIDDEN}, {"card_number_kind": "visa"}]}
    assert shown(read("password, card_number"), body) == expected


def test_a_dotted_name_is_a_field_of_that_object_only() -> None:
    body = {"number": 7, "payment": {"number": CARD}, "order": {"payment": [{"number": CARD}]}}
    expected = {"number": 7, "payment": {"number": HIDDEN}, "order": {"payment": [{"number": HIDDEN}]}}
    assert shown(read("payment.number"), body) == expected


def test_what_repeats_a_hidden_value_is_hidden_too() -> None:
    given = message(
        {"card": CARD, "limit": 25_000, "shop": "corner"},
        key=CARD,
        headers={
            h.SUBJECT: CARD,
            "x-note": f"for {CARD}, up to 25000",
            h.ERROR_MESSAGE: f"card {CARD} was refused",
            h.ERROR_STACK: f"  [type=string_type, input_value={{'card': '4111...'}}, input_type=dict]\n{CARD}",
        },
    )
    found = read("card,limit").shown(given)
    assert found.key == HIDDEN
    assert found.headers[h.SUBJECT] == HIDDEN
    assert found.headers["x-note"] == f"for {HIDDEN}, up to {HIDDEN}"
    assert found.headers[h.ERROR_MESSAGE] == f"card {HIDDEN} was refused"
    assert "4111" not in found.headers[h.ERROR_STACK]
    assert found.headers[h.ID] == "0190-1"
    assert b"corner" in (found.body or b"")


def test_a_header_is_hidden_by_its_name() -> None:
    found = read("x-token").shown(message({}, headers={"X-Token": "abc", "x-other": "abc", h.ID: "i"}))
    assert found.headers["X-Token"] == HIDDEN
    assert found.headers["x-other"] == "abc"


@pytest.mark.parametrize("body", [b"\x93\x01\xa3abc", b'{"card": ', b"[" * 100_000], ids=["binary", "cut", "deep"])
def test_a_body_that_cannot_be_looked_into_is_hidden_whole(body: bytes) -> None:
    found = read("card").shown(message(body))
    assert (found.body or b"").startswith(b"*** (")
    assert read("").shown(message(body)).body == body


def test_an_object_that_names_a_field_twice_hides_both() -> None:
    found = read("card").shown(message(b'{"a": {"card": "4111"}, "a": 1, "card": "4111", "card": "2"}'))
    assert b"4111" not in (found.body or b"")


def test_a_cloud_event_with_an_encoded_payload() -> None:
    assert shown(read("card"), {"id": "1", "data_base64": "eyJjYXJk"}) == {"id": "1", "data_base64": HIDDEN}


def test_nothing_to_hide_leaves_the_message_as_it_is() -> None:
    body = b'{"total": 1.10, "big": 1e400}'
    assert read("card").shown(message(body)).body == body
    plain = message(body)
    assert read("").shown(plain) is plain


def test_a_tombstone_has_nothing_to_hide() -> None:
    assert read("card").shown(message({})._replace(body=None)).body is None


def mask(path: str, value: object) -> object:
    if path == "iban" and isinstance(value, str):
        return f"…{value[-4:]}"
    if path == "odd":
        raise ValueError("cannot be judged")
    return value


def test_a_function_says_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    redactor = Redactor(["pin"], [mask])
    body = {"iban": "DE02120300000000202051", "odd": 3, "pin": 1234, "inner": {"iban": "x"}}
    expected = {"iban": "…2051", "odd": HIDDEN, "pin": HIDDEN, "inner": {"iban": "x"}}
    assert shown(redactor, body) == expected
    monkeypatch.setattr("eventkit.redacting.mask", mask, raising=False)
    assert shown(read("pin,eventkit.redacting:mask"), body) == expected


@pytest.mark.parametrize("said", ["no.such.module:hide", "eventkit.redacting:nothing", "eventkit.redacting:HIDDEN"])
def test_a_function_that_is_not_there(said: str) -> None:
    with pytest.raises(SettingsError, match="EVENTKIT_REDACT"):
        read(said)


class Holder(BaseModel):
    pin: SecretStr | None = Field(default=None, alias="secretPin")

    @field_serializer("pin")
    def _plain(self, value: SecretStr | None) -> str | None:
        return value and value.get_secret_value()


class CardIssued(Event, topic="redacting-cards", type="RedactingCardIssued"):
    holders: list[Holder]
    name: str


def test_what_a_class_declares_as_a_secret_is_hidden_without_a_setting() -> None:
    given = message({"holders": [{"secretPin": "1234"}], "name": "Ada"}, type_="RedactingCardIssued")
    assert json.loads(read("").shown(given).body or b"") == {"holders": [{"secretPin": HIDDEN}], "name": "Ada"}


def test_a_dead_letter_is_shown_without_it() -> None:
    given = message({"card": CARD}, headers={h.ERROR_MESSAGE: f"no card {CARD}"})
    letter = read_letter(Delivery(given, "7", 1, None), JSON_SERIALIZER)
    found = read("card").letter(letter)
    assert (found.body, found.error_message, found.id) == (b'{"card": "***"}', "no card ***", letter.id)
    assert letter.body == given.body, "the letter itself can still be retried"
