"""How long `import eventkit` takes beyond pydantic, which every service has: `python -m bench.imports`.

Seconds of CPU in fresh interpreters, in turn, so that a busy machine meets both. Exits with 1 above the bar.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

BAR = 0.25
_ROUNDS = 15
_PYDANTIC = "import pydantic; pydantic.BaseModel; pydantic.TypeAdapter; "
_TOLD = "import time; began = time.process_time(); {}; print(time.process_time() - began)"


def seconds(before: str, code: str) -> float:
    """Of this code, after that."""
    command = [sys.executable, "-c", before + _TOLD.format(code)]
    return float(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)


def main() -> int:
    rounds = [(seconds("", _PYDANTIC + "pass"), seconds(_PYDANTIC, "import eventkit")) for _ in range(_ROUNDS)]
    pydantic, ours = (statistics.median(each) for each in zip(*rounds, strict=True))
    print(f"pydantic {pydantic:.3f} s, eventkit beyond it {ours:.3f} s (at most {BAR} s)")
    return int(ours > BAR)


if __name__ == "__main__":
    sys.exit(main())
