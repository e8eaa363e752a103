"""Real brokers for tests: from the environment, a container, an installed server, or installed on the spot.

    with provide("redis") as broker:
        ...  # broker.url, broker.version; broker.kill() and broker.start() for tests of a crash

On the command line: `python -m eventkit.testing.brokers redis -- pytest`.
"""

from eventkit.testing.brokers.broker import Broker
from eventkit.testing.brokers.errors import BrokerUnavailable
from eventkit.testing.brokers.ways import NAMES, make_available, provide

__all__ = ["NAMES", "Broker", "BrokerUnavailable", "make_available", "provide"]
