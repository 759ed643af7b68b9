"""Makes the fixtures of the local cluster and of its runtime known to the tests of this folder."""

from tests.cluster.cri_fixtures import cri, runtime
from tests.cluster.fixtures import cluster, namespace

__all__ = ["cluster", "cri", "namespace", "runtime"]
