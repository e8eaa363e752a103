"""Prints what to install for some extras and dependency groups, as requirements: `requirements.py redis test`."""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = PROJECT["dependency-groups"]


def group(name: str) -> Iterator[str]:
    for item in GROUPS[name]:
        if isinstance(item, str):
            yield item
        else:
            yield from group(item["include-group"])


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in EXTRAS and name not in GROUPS and name != "memory"]
    if unknown:
        known = ", ".join(["memory", *EXTRAS, *GROUPS])
        sys.stderr.write(f"no extra or group of pyproject.toml: {', '.join(unknown)} (there are {known})\n")
        return 1
    extras = [name for name in names if name in EXTRAS]
    lines = ["-e ." + (f"[{','.join(extras)}]" if extras else "")]
    lines += [line for name in names if name in GROUPS for line in group(name)]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
