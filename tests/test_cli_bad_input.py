"""What a person can get wrong at the prompt, and in his code: one clear line each, and no trace unless --debug."""

from __future__ import annotations

import socket
import textwrap
from pathlib import Path

import pytest

from tests.programs import EVENTKIT, ROOT, Program
from tests.prompt import each

_FILES = {
    "shop.py": """
        import eventkit

        class Paid(eventkit.Event, topic="paid"):
            amount: int

        service = eventkit.Service("shop")
        number = 3

        @service.handler
        async def paid(event: Paid) -> None: ...
        """,
    "broken.py": "import shop\nimport inner\n",
    "inner.py": "def divide():\n    return 1 / 0\n\n\ndivide()\n",
    "syntax.py": "def f(:\n",
    "ends.py": "import sys\nsys.exit(3)\n",
    "absent.py": "import nowhere\n",
    "declared.py": "import eventkit\n\n\nclass Paid(eventkit.Event, topik='paid'): ...\n",
    "plain.py": "import eventkit\n\n\nclass Odd: ...\n\n\nclass Paid(eventkit.Event, topic='paid'):\n    odd: Odd\n",
    "odd.py": """
        import eventkit
        from pydantic import ConfigDict

        class Odd: ...

        class Paid(eventkit.Event, topic="paid"):
            model_config = ConfigDict(arbitrary_types_allowed=True)
            odd: Odd

        service = eventkit.Service("odd")

        @service.handler
        async def paid(event: Paid) -> None: ...
        """,
    "unforeseen.py": """
        import eventkit

        class Service(eventkit.Service):
            def groups(self):
                raise RuntimeError("one\\ntwo")

        service = Service("shop")
        """,
    "newer.json": '{"asyncapi": "3.9.0"}',
    "newest.json": '{"asyncapi": "3.0.0", "x-eventkit": {"format": 99}}',
    "half.json": '{"asyncapi": ',
}
_BROKEN = "broken cannot be imported: ZeroDivisionError: division by zero (broken.py:2 > inner.py:5 > inner.py:2)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in _FILES.items():
        (tmp_path / name).write_text(textwrap.dedent(text).lstrip())
    return tmp_path


def said(folder: Path, *words: str) -> tuple[int, str]:
    with Program(*EVENTKIT, *words, cwd=folder) as program:
        return program.wait(60), program.output


_LINES = [
    ("run nowhere:service", "there is no module 'nowhere' here; it is looked for from the current folder"),
    ("run shop:srvice", "there is no 'srvice' in shop; did you mean shop:service?"),
    ("run shop:number", "shop:number is no Service and no list of them, but int; its services: service"),
    ("run broken:service", _BROKEN),
    ("docs json broken:service", _BROKEN),
    ("docs build broken:service", _BROKEN),
    ("status broken:service", _BROKEN),
    ("topics show broken:service", _BROKEN),
    ("publish broken:Paid {}", _BROKEN),
    ("publish Paid {} --from broken", _BROKEN),
    ("run syntax:service", "syntax cannot be imported: SyntaxError: invalid syntax (syntax.py:1)"),
    ("run ends:service", "ends cannot be imported: SystemExit: 3 (ends.py:2)"),
    (
        "run absent:service",
        "absent cannot be imported: ModuleNotFoundError: No module named 'nowhere' (absent.py:1)",
    ),
    ("run declared:service", "Paid: unknown class keyword topik=; did you mean topic=? (legal: "),
    ("publish shop:Paid {", "malformed JSON: EOF while parsing an object at line 1 column 1"),
    ("docs json odd:service", "Paid.odd cannot be described: Unable to generate pydantic-core schema for"),
    ("run plain:service", "plain cannot be imported: PydanticSchemaGenerationError: Unable to generate"),
    ("docs check newer.json shop:service", "newer.json: it is AsyncAPI 3.9.0, newer than 3.1.0"),
    ("docs check newest.json shop:service", "newest.json: a newer eventkit wrote it (format 99, known here: 1)"),
    ("docs check half.json shop:service", "half.json: line 1: it is no JSON: Expecting value"),
    ("docs build shop:service -o shop.py/site", "shop.py/site/index.html cannot be written: Not a directory"),
]


def test_is_one_line(folder: Path) -> None:
    for (line, expected), done in zip(_LINES, each(folder, [line.split() for line, _ in _LINES]), strict=True):
        assert (done.code, done.out, len(done.complaints)) == (2, "", 1), (line, done)
        assert done.err.startswith(f"eventkit: {expected}"), (line, done)
        assert str(ROOT) not in done.err, line  # the user's frames only


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("docs serve shop:service --port {port}", "nothing can be served at 127.0.0.1:{port}: Address already in use"),
        ("run shop:service --broker memory --health-port {port}", "health port {port} on 127.0.0.1 cannot be had"),
    ],
)
def test_a_port_in_use_is_one_line(folder: Path, line: str, expected: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, output = said(folder, *line.format(port=port).split())
    assert code != 0
    assert output.startswith(f"eventkit: {expected.format(port=port)}"), output
    assert output.count("\n") == 1, output


def test_what_nobody_foresaw_is_one_line_too(folder: Path) -> None:
    code, output = said(folder, "status", "unforeseen:service")
    assert (code, output.count("\n")) == (1, 1), output
    assert output.startswith("eventkit: unexpected RuntimeError: one two ("), output
    assert "unforeseen.py:5); --debug shows the whole way there" in output


@pytest.mark.parametrize(
    "line",
    [
        "--debug docs json broken:service",
        "docs json broken:service --debug",
        "publish broken:Paid {} --debug",
        "status unforeseen:service --debug",
    ],
)
def test_debug_shows_the_trace_wherever_it_stands(folder: Path, line: str) -> None:
    code, output = said(folder, *line.split())
    assert code in (1, 2)
    assert "Traceback (most recent call last):" in output
    assert "ZeroDivisionError: division by zero" in output or "RuntimeError: one" in output
    assert any(text.startswith("eventkit: ") for text in output.splitlines())


def test_after_two_dashes_debug_is_a_word_like_any_other(folder: Path) -> None:
    code, output = said(folder, "publish", "shop:Paid", "--", "--debug")
    assert code == 2
    assert "malformed JSON" in output
    assert "Traceback" not in output
