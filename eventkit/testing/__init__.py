"""Run services in memory, in a test, with a virtual clock.

```python
async with eventkit.testing.run(orders, shipping) as t:
    await t.publish(OrderPlaced(order_id="7"))
    await t.idle()                                    # through all retries, without waiting
    assert t.published(ParcelBooked) == [ParcelBooked(order_id="7")]
```
"""

from eventkit.testing.fits import assert_fits
from eventkit.testing.harness import DeadLetter, Harness
from eventkit.testing.real import run_on
from eventkit.testing.virtual import Run, run

__all__ = ["DeadLetter", "Harness", "Run", "assert_fits", "run", "run_on"]
