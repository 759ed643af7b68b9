"""What is left out of a status where the cluster's CRD is older than the operator."""

from __future__ import annotations

from r1_operator.cluster import ApiError
from r1_operator.controller.older_schema import undeclared, without


def test_what_the_api_server_does_not_know_is_left_out() -> None:
    """An N−1 CRD: every write of the status failed, and nothing was ever started again."""
    said = (
        "failed to create typed patch object (ns/r1; r1operator.dev/v1alpha1, Kind=R1Deployment): errors:\n"
        "  .status.rollout: field not declared in schema\n"
        '  .status.replicaStatuses[name="r1-0-0"].revision: field not declared in schema'
    )
    fields = undeclared(ApiError(500, "InternalError", said))
    assert fields == {("rollout",), ("replicaStatuses", "revision")}
    status = {"rollout": {}, "replicas": 1, "replicaStatuses": [{"name": "r1-0-0", "revision": "a"}]}
    assert without(status, fields) == {"replicas": 1, "replicaStatuses": [{"name": "r1-0-0"}]}
    assert undeclared(ApiError(422, "Invalid", "status.replicas: must be positive")) == frozenset()
