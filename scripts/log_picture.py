"""Makes docs/images/log.svg: the log of `eventkit run` as it looks at a terminal, from a run of the shop on NATS.

python scripts/log_picture.py
"""

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

import eventkit
from eventkit.testing.brokers import provide

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
FILE = ROOT / "docs" / "images" / "log.svg"
COLUMNS = 112
INDENT = 37
"""Where the text of a line of the log begins."""
COMMAND = ("run", "examples.shop:services", "--broker", "nats")
THEME = TerminalTheme(
    (22, 27, 34),
    (225, 228, 232),
    [
        (72, 79, 88), (255, 123, 114), (126, 231, 135), (240, 190, 90), (121, 192, 255), (210, 168, 255),
        (86, 212, 221), (177, 186, 196),
    ],
    [
        (110, 118, 129), (255, 161, 152), (154, 240, 160), (255, 211, 120), (165, 214, 255), (226, 197, 255),
        (130, 230, 235), (255, 255, 255),
    ],
)  # fmt: skip
# As rich has it, but with the fonts of whoever looks: a picture must not fetch any.
FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>{lines}</defs>
<rect fill="#161b22" width="{width}" height="{height}" rx="8" />
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def main() -> None:
    with provide("nats") as broker:
        namespace = f"picture-{os.getpid()}"
        env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
        env |= {"EVENTKIT_URL": broker.url, "EVENTKIT_NAMESPACE": namespace, "TERM": "xterm-256color"}
        log = run(env, lambda: asyncio.run(orders(broker.url, namespace)))
    log = log.replace(broker.url, "nats://localhost:4222")
    FILE.write_text(picture(f"$ eventkit {' '.join(COMMAND)}\n{log}"), encoding="utf-8")
    sys.stdout.write(f"wrote {FILE.relative_to(ROOT)}\n")


async def orders(url: str, namespace: str) -> None:
    """Three: one that is sent, one whose payment is tried again, one that nobody can send."""
    from examples.shop.messages import PlaceOrder

    async with eventkit.connect("nats", url, namespace=namespace) as bus:
        for number, item, address in (
            ("41", "lamp", "12 Mill Lane"),
            ("42", "chair", "7 Harbour Street"),
            ("43", "vase", "the house behind the hill"),
        ):
            await bus.send(PlaceOrder(order_id=number, item=item, address=address))
            await asyncio.sleep(0.1)


class _Terminal:
    """What a program writes to a terminal."""

    def __init__(self, descriptor: int) -> None:
        self.text = ""
        self._descriptor = descriptor
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def until(self, pattern: str) -> None:
        ends = time.monotonic() + 30
        while not re.search(pattern, self.text):
            if time.monotonic() > ends:
                raise SystemExit(f"it never said {pattern!r}:\n{self.text}")
            time.sleep(0.05)

    def _read(self) -> None:
        while True:
            try:
                said = os.read(self._descriptor, 65_536)
            except OSError:  # all of its writers are gone
                return
            if not said:
                return
            self.text += said.decode().replace("\r\n", "\n")


def run(env: dict[str, str], meanwhile: Callable[[], None]) -> str:
    """The service's log, from its start to its end."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "eventkit", *COMMAND]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=theirs, stderr=theirs, stdin=theirs) as service:  # noqa: S603
        os.close(theirs)
        terminal = _Terminal(ours)
        terminal.until("shipping .*PaymentTaken")
        meanwhile()
        terminal.until("order 42 is closed")
        terminal.until("dead letter")
        time.sleep(0.3)
        service.send_signal(signal.SIGTERM)
        service.wait(30)
    terminal.thread.join(5)
    os.close(ours)
    return terminal.text


def picture(text: str) -> str:
    """As SVG. Lines of the log that are too long go on under their text."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    for line in Text.from_ansi(text.rstrip() + "\n ").split("\n"):
        first, *rest = line.divide([INDENT])
        parts = rest[0].wrap(console, COLUMNS - INDENT) if len(line) > COLUMNS else rest
        console.print(Text.assemble(first, Text("\n" + " " * INDENT).join(parts)))
    return console.export_svg(title="", theme=THEME, code_format=FORMAT, unique_id="log", font_aspect_ratio=0.61)


if __name__ == "__main__":
    main()
