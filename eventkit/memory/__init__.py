"""The adapter without a broker: the same guarantees inside one process, and nothing leaves it.

All buses of a process share one store, so that a publisher and its services find each other as they would on a broker.
What it holds is lost with the process.
"""

from eventkit.memory.adapter import MemoryAdapter
from eventkit.memory.consumer import MemoryConsumer
from eventkit.memory.store import Store

__all__ = ["MemoryAdapter", "MemoryConsumer", "Store"]
