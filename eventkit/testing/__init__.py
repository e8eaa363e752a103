"""Run services in memory, in a test, with a virtual clock.

```python
async with eventkit.testing.run(orders, shipping) as t:
    await t.publish(OrderPlaced(order_id="7"))
    await t.idle()                                    # through all retries, without waiting
    assert t.published(ParcelBooked) == [ParcelBooked(order_id="7")]
```
"""

from eventkit.testing.harness import DeadLetter, Harness, run

__all__ = ["DeadLetter", "Harness", "run"]
