"""What one node more or fewer, and twice as many, would bring to a plan, or why they are not possible."""

from __future__ import annotations

from dataclasses import replace

from r1_operator.api.names import MAX_NODES_PER_REPLICA

from .plan import Plan, Refusal, Size
from .search import Found, search
from .wishes import Wishes


def around(wishes: Wishes, plan: Plan) -> tuple[tuple[int, Size | Refusal], ...]:
    """Other node counts beside `plan`, fewest first, each planned with the same wishes but for its layout.

    For processor cores there are none: nothing is estimated there.
    """
    if wishes.profile.device == "Cpu":
        return ()
    nodes = plan.nodes_per_replica
    counts = sorted({nodes - 1, nodes + 1, 2 * nodes})
    return tuple((count, _on(wishes, count)) for count in counts if 1 <= count <= MAX_NODES_PER_REPLICA)


def _on(wishes: Wishes, nodes: int) -> Size | Refusal:
    """Also where the cluster has fewer: what more nodes would bring is asked before they are bought."""
    found = search(replace(wishes.any_layout(), nodes=nodes, cluster_nodes=None))
    return found.best.size if isinstance(found, Found) else found
