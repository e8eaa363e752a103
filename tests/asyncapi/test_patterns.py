"""Patterns: made portable, and matched by a made text."""

from __future__ import annotations

import re

import pytest

from eventkit.asyncapi.patterns import matching, portable


@pytest.mark.parametrize(
    "pattern",
    [
        r"^ORD-\d{6}$", r"^[A-Z]{2}[0-9a-f]+$", r"^(foo|bar)+x?$", r"^[^abc]{3}$", r"a|b", r"^\w+@\w+\.com$", r"^$",
        r"^(?!x)[a-z]{2,5}$", r"^(\d)\1$", r"^\s\S\D\W$", r"(?P<year>\d{4})-(?P<month>\d\d)\Z", r"\A.{5}\z",
        r"^[^\d]{2}$", r"(?:ab){3}",
    ],
)  # fmt: skip
def test_a_matching_text_is_found(pattern: str) -> None:
    written = portable(pattern)
    assert written is not None
    text = matching(written)
    assert text is not None
    assert re.search(pattern.replace(r"\z", r"\Z"), text)


@pytest.mark.parametrize(
    ("pattern", "written"),
    [
        (r"(?P<a>x)(?P=a)", r"(x)\1"),
        (r"\Ax\Z", "^x$"),
        (r"\\Ax", r"\\Ax"),
        ("(?i)x", None),
        ("(?#why)x", None),
        ("(?<=a)b", "(?<=a)b"),
    ],
)
def test_patterns_are_written_in_javascripts_dialect(pattern: str, written: str | None) -> None:
    assert portable(pattern) == written


@pytest.mark.parametrize("pattern", ["(", r"x{1000}", r"(?=a)b"])
def test_where_none_is_found_there_is_none(pattern: str) -> None:
    assert matching(pattern) is None
