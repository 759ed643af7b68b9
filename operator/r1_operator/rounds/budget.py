"""How many engine pods an eviction must leave: whole gangs, one at a time, and none that a move could spare.

`kubectl drain`, Karpenter and the cluster autoscaler cordon or taint a node first and evict then. While evictions are
refused, the operator has time to start another gang elsewhere and to drain this one itself; whoever evicts tries again
and finds the node empty. Only where no node can take a gang's place is one of several let go as it is: one pod, whose
gang the operator takes along, and no other before its successor serves.
"""

from __future__ import annotations

from ..api.reasons import Reason
from ..lifecycle.actions import Decision
from ..lifecycle.gangs import GangState
from ..lifecycle.observed import Wanted


def budget(decision: Decision, wanted: Wanted) -> int:
    """`minAvailable` of the engines' PodDisruptionBudget, in pods."""
    serving = [v for v in decision.replicas if v.gang is not None and v.state is GangState.READY]
    pods = sum(v.gang.size for v in serving if v.gang is not None)
    stuck = decision.blocked is not None and decision.blocked.reason is Reason.NO_NODE_FOR_MOVE
    may = len(serving) - 1 >= wanted.replicas - wanted.max_unavailable
    return pods - 1 if stuck and may and serving and not decision.leaving else pods
