"""Makes the local cluster's fixtures known to the tests of this folder."""

from tests.cluster.fixtures import cluster, namespace, new_cluster

__all__ = ["cluster", "namespace", "new_cluster"]
