"""All breaks, of the core and of the adapters."""

from __future__ import annotations

from tests.mutants.brokers import BROKERS
from tests.mutants.core import CORE

ALL = (*CORE, *BROKERS)
