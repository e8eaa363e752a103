"""All breaks, of the core and of the adapters."""

from __future__ import annotations

from tests.mutants.batches import BATCHES
from tests.mutants.brokers import BROKERS
from tests.mutants.core import CORE
from tests.mutants.groups import GROUPS
from tests.mutants.losses import LOSSES
from tests.mutants.messages import MESSAGES
from tests.mutants.ports import PORTS
from tests.mutants.stopping import STOPPING

ALL = (*CORE, *MESSAGES, *BATCHES, *GROUPS, *BROKERS, *PORTS, *STOPPING, *LOSSES)
