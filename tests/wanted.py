"""Which backends this run is asked for: `--backend`, or EVENTKIT_TEST_BACKENDS, or all."""

from __future__ import annotations

import os

import pytest

from tests.backends import ALL


def wanted(config: pytest.Config) -> list[str]:
    """In our order."""
    said = config.getoption("--backend") or os.environ.get("EVENTKIT_TEST_BACKENDS", "").replace(",", " ").split()
    unknown = set(said) - set(ALL)
    if unknown:
        raise pytest.UsageError(f"EVENTKIT_TEST_BACKENDS: {', '.join(sorted(unknown))}; one of {', '.join(ALL)}")
    return [name for name in ALL if name in (said or ALL)]
