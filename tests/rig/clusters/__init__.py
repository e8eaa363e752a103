"""Brokers of several servers on this machine, of which the one that leads can be killed.

    with cluster("nats", print) as found:
        found.kill()   # the leader, by -9; returns when another leads
        found.start()  # it comes back; returns when all are in step

Of all that a namespace has, the leader of the rig's own topic is meant.
"""

from tests.rig.clusters.cluster import Cluster
from tests.rig.clusters.made import CLUSTERS, cluster

__all__ = ["CLUSTERS", "Cluster", "cluster"]
