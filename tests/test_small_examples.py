"""The examples of the pages on middleware and serialization, as programs, in memory and on a real broker."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Callable

import pytest

from eventkit.testing.brokers import NAMES, Broker
from tests.programs import Program
from tests.wanted import wanted

_TOLD = {
    "examples.middleware": (
        r"^north: north \w+: 7 of 10$",
        r"^south: south \w+: 7 of 10$",
        r"^dead letter, undecodable: .* sealed with the key '1999', which is not known here$",
        r"^SampleTaken 2 times, TestSample 2 times$",
        r"laboratory +tests a sample of north  ~\w+$",
    ),
    "examples.serialization": (
        r"^\d\d bytes of application/avro: Measured\(station='Sonnblick', celsius=-7.25",
        r"^frost at Sonnblick: -7.2 °C$",
        r"^tomorrow -8.2 °C, said a reply in msgpack$",
    ),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = wanted(metafunc.config)
    metafunc.parametrize("name", ["memory", *[name for name in NAMES if name in names][:1]])


@pytest.mark.parametrize("example", _TOLD)
def test_it_tells_its_story(example: str, name: str, broker: Callable[[str], Broker]) -> None:
    settings = {"EVENTKIT_BROKER": name, "PYTHONUTF8": "1"}
    if name != "memory":
        settings |= {"EVENTKIT_URL": broker(name).url, "EVENTKIT_NAMESPACE": f"examples-{uuid.uuid4().hex[:8]}"}
    with Program(sys.executable, "-m", example, env=settings) as program:
        assert program.wait(60) == 0, program.output
        for line in _TOLD[example]:
            assert re.search(line, program.output, re.MULTILINE), f"{line}:\n{program.output}"
    assert "Traceback" not in program.output
