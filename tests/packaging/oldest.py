"""That what is installed here is the oldest that pyproject.toml allows, of each dependency and of those of each extra.

    python oldest.py pyproject.toml

One that is newer has a floor that nothing here has ever been tried on: another dependency asks for more.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version


def floors(project: dict[str, object]) -> dict[str, Version]:
    """The oldest allowed version of each, by name; that of the strictest of several."""
    extras = project["optional-dependencies"]
    assert isinstance(extras, dict)
    said = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]  # type: ignore[misc]
    found: dict[str, Version] = {}
    for one in map(Requirement, said):
        if one.name == project["name"]:
            continue
        floor = [Version(bound.version) for bound in one.specifier if bound.operator == ">="]
        assert floor, f"{one}: say the oldest version that it may be"
        found[one.name] = max(floor[0], found.get(one.name, floor[0]))
    return found


def main(pyproject: str) -> None:
    wanted = floors(tomllib.loads(Path(pyproject).read_text(encoding="utf-8"))["project"])
    newer = [
        f"{name}>={floor} is said, and {version(name)} is the oldest that the others let it be"
        for name, floor in wanted.items()
        if Version(version(name)) != floor
    ]
    assert not newer, "; ".join(newer)
    print(f"{len(wanted)} dependencies, each the oldest that is allowed")


if __name__ == "__main__":
    main(sys.argv[1])
