"""What every adapter must do, as checks: plain async functions over an adapter factory.

```python
from eventkit.contract import CHECKS

asyncio.run(CHECKS["D1"].run(my_backend))
```

Core behaviours have no flags: they hold on every backend, natively or by the core's work. A capability has two checks:
it works where it is declared, and asking for it is refused at start where it is not.
"""

from eventkit.contract import (
    age,
    attempts,
    batches,
    border,
    circuits,
    consumers,
    crashes,
    dead_letters,
    delays,
    delivery,
    failure,
    following,
    groups,
    handlers,
    holding,
    lifecycle,
    metadata,
    order,
    provisioning,
    quarantine,
    recovery,
    redriving,
    requests,
    rollout,
    routing,
    scale,
    sending,
    versions,
)
from eventkit.contract.checks import CHECKS, Backend, Check, Faults, Refused, Vacuous, check

__all__ = [
    "CHECKS",
    "Backend",
    "Check",
    "Faults",
    "Refused",
    "Vacuous",
    "age",
    "attempts",
    "batches",
    "border",
    "check",
    "circuits",
    "consumers",
    "crashes",
    "dead_letters",
    "delays",
    "delivery",
    "failure",
    "following",
    "groups",
    "handlers",
    "holding",
    "lifecycle",
    "metadata",
    "order",
    "provisioning",
    "quarantine",
    "recovery",
    "redriving",
    "requests",
    "rollout",
    "routing",
    "scale",
    "sending",
    "versions",
]
