"""Headers: what may be given, and how values become text and come back."""

from __future__ import annotations

import random
import string
from datetime import UTC, datetime

import pytest

from eventkit import InvalidMessage
from eventkit import headers as h

_ALPHABETS = [
    string.printable,
    "%0123456789abcdefABCDEF",
    "".join(chr(code) for code in range(0x180)),
    "äöüß€日本語🎉\u202e\u0301\ufeff\U0010ffff",
    "\"' \t\\/:;,=?&#<>",
]


def test_escaping_is_reversible_for_any_text() -> None:
    rng = random.Random(1)
    texts = ["", "%", "%%", "%41", "100%", "a b", '"', "é", "e\u0301"]
    texts += ["".join(rng.choices(rng.choice(_ALPHABETS), k=rng.randrange(40))) for _ in range(3_000)]
    for text in texts:
        escaped = h.escape(text)
        assert h.unescape(escaped) == text
        assert escaped.isascii()
        assert not set(escaped) & set(' "\r\n\t\0\x7f')


def test_plain_ascii_is_not_escaped() -> None:
    plain = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '%"')
    assert h.escape(plain) == plain
    assert h.escape("50% off") == "50%25%20off"


def test_what_was_never_escaped_stays() -> None:
    for text in ("", "plain", "Grüße", "50% off", "%zz", "%"):
        assert h.unescape(text) == text


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("text", "text"),
        ("", ""),
        (b"bytes", "bytes"),
        (bytearray("grün", "utf-8"), "grün"),
        (memoryview(b"view"), "view"),
        (b"\xff", None),
        (7, "7"),
        (-1.5, "-1.5"),
        (True, "true"),
        (False, "false"),
        (None, None),
        ({"a": 1}, None),
        ([1], None),
        (datetime.now(UTC), None),
    ],
)
def test_a_received_value_becomes_text_by_one_rule(given: object, read: str | None) -> None:
    assert h.text(given) == read


@pytest.mark.parametrize(
    "name",
    [
        *["ce-id", "CE-Type", "ce_source", "ek-attempt", "EK-x"],
        *["Content-Type", "correlation_id", "message_id", "Reply_To", "Nats-Msg-Id"],
    ],
)
def test_reserved_names_are_refused_with_one_that_is_free(name: str) -> None:
    with pytest.raises(InvalidMessage, match=rf"header '{name}' is reserved: .* 'x-{name.lower()}'"):
        h.check({name: "x"})
    assert h.check({f"x-{name.lower()}": "x"})


@pytest.mark.parametrize(
    "headers",
    [
        {"": "x"},
        {"a\nb": "x"},
        {"a": "x\r\ny"},
        {"a": "\0"},
        {"a": 1},
        {"a": None},
        {"a": b"x"},
        {1: "a"},
        {"a": "\ud800"},
        {"\udfff": "a"},
    ],
)
def test_what_does_not_survive_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidMessage, match="header "):
        h.check(headers)


def test_no_headers_and_odd_ones_pass() -> None:
    assert h.check(None) == {}
    odd = {"x": "", "名前": "日本語", "a b": " c ", "traceparent": "00-1-2-01", "x%41": "%"}
    assert h.check(odd) is odd


def test_users_see_their_own_headers_only() -> None:
    theirs = {"x": "", "traceparent": "t", "名前": "n"}
    ours = dict.fromkeys((h.ID, h.TYPE, h.ATTEMPT, h.CONTENT_TYPE, h.REPLY_TO, h.MESSAGE_ID, h.CORRELATION_ID), "o")
    foreign = {"Content-Type": "text/plain", "Nats-Msg-Id": "1", "CE-Foo": "2"}
    assert h.user({**theirs, **ours, **foreign}) == theirs
    h.check(h.user({**theirs, **ours, **foreign}))  # so they can be passed on
