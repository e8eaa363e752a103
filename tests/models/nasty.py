"""What others may put on a broker: headers, bodies and keys that are wrong in every way we can think of."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import strategies as st

from eventkit import headers as h

NOW = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
NAMES = sorted({value for name, value in vars(h).items() if name.isupper() and isinstance(value, str)})
"""Of all headers that mean something to us."""
LONG = "9" * 5_000
"""More digits than Python reads into a number."""
TEXTS = (
    *("", " ", "0", "-1", "1.0", LONG, "\u00b2", "\u0661", "NaN", "true", "null", "\ud800"),
    *("1 1", "1 1 alone", f"{LONG} {LONG}", f"1 {LONG} alone"),
    *("%", "%ZZ", "%E9", "topic:", "topic:a|b", "inbox:", "reply:x", ":::"),
    *("application/json", "application/JSON; charset=latin-1", "text/plain", "application/msgpack", "+json", ";"),
    *("application/cloudevents+json", "application/cloudevents", "application/cloudevents-batch+json"),
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2025-02-30", "2025-01-01", "2025-01-01T00:00:00Z"),
)
"""What such a header may say that we would not write."""

texts = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(), max_size=20),  # with halves of surrogate pairs
    st.integers().map(str),
    st.sampled_from(TEXTS),
)
headers = st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=10)), texts, max_size=8)

_surrogates = st.text(st.characters(), max_size=8)
_leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _surrogates)
_data = st.recursive(
    _leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
_envelope = st.dictionaries(
    st.sampled_from(["specversion", "id", "source", "type", "data", "data_base64", "time", "traceparent"]),
    st.one_of(_data, st.sampled_from(["1.0", "Told", "e30=", "{}"])),
)
_content = st.fixed_dictionaries({"number": st.one_of(st.integers(), st.floats(), texts), "key": _data})
json_bodies = st.one_of(_data, _envelope, _content).map(lambda data: json.dumps(data).encode())
bodies = st.one_of(
    st.none(),
    st.binary(max_size=60),
    json_bodies,
    json_bodies.map(lambda body: body[:-1]),
    json_bodies.map(lambda body: body.decode().encode("utf-16")),
    st.sampled_from([b"", b"null", b"{}", b"[" * 3_000, b'{"a":' * 3_000, b"\xef\xbb\xbf{}", LONG.encode(), b"NaN"]),
)
faststreams_bodies = st.fixed_dictionaries(
    {"data": _surrogates, "headers": st.dictionaries(_surrogates, _leaves, max_size=3)}
).map(lambda data: json.dumps(data).encode())
"""Its older format on Redis."""
keys = st.one_of(st.none(), texts)
