"""Which of the candidates that work is best: the layout on a number of nodes, and the number of nodes.

Pure, and of the wishes alone: nothing here sees the cluster, so a plan does not change when nodes come and go. Why it
is so, with the numbers: docs/design/planning.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from .layout import AllToAll, Layout
from .performance import ESTIMATE_ERROR, estimate
from .sizing import Candidate, keeps_context
from .wishes import Wishes

# Differences below this are within the error of the performance model and do not pay for more moving parts.
ESTIMATE_MARGIN = 0.10
LATENCY_REQUESTS = 8
# More nodes than are needed must be expected to do so many times better, each GPU for itself: less could be nothing but
# two estimates that are off in opposite directions. A plan that finds no nodes does nothing at all.
WORTH_MORE_NODES = (1 + ESTIMATE_ERROR) / (1 - ESTIMATE_ERROR)
MOST_TIMES_THE_FEWEST = 2
# Of a cluster whose size is known: what a plan of smaller replicas may give away, because a failure ends less of it.
GIVEN_FOR_SMALLER_REPLICAS = 0.25


def rank(wishes: Wishes, works: Sequence[Candidate]) -> list[Candidate]:
    """Candidates on the same nodes. Of those that keep the model's context, if any does, the simplest layout within the
    estimate's margin of the best leads; the rest go by their score."""
    ordered = sorted(works, key=lambda candidate: score(wishes, candidate))
    if ordered[0].estimate is None:
        return ordered
    pool = [candidate for candidate in ordered if keeps_context(wishes, candidate)] or ordered
    limit = score(wishes, pool[0])
    near = [c for c in pool if score(wishes, c) <= limit + abs(limit) * ESTIMATE_MARGIN]
    leader = min(near, key=lambda candidate: (_moving_parts(candidate.layout), score(wishes, candidate)))
    return [leader, *(candidate for candidate in ordered if candidate is not leader)]


def most_nodes(wishes: Wishes, fewest: int) -> int:
    """The largest replica worth a look where `fewest` nodes hold the model."""
    if wishes.cluster_nodes is not None and wishes.goal != "Latency":
        return wishes.cluster_nodes
    return fewest * MOST_TIMES_THE_FEWEST


def choose(wishes: Wishes, leaders: Sequence[Candidate]) -> Candidate:
    """The best of each node count, fewest nodes first: the one to take.

    Those that keep the model's context come before those that cut it. Of them the fewest nodes, unless more are
    expected to do WORTH_MORE_NODES times better; where the cluster's size is known, what the whole cluster does counts.
    """
    pool = [candidate for candidate in leaders if keeps_context(wishes, candidate)] or list(leaders)
    if wishes.over_tcp:  # what more nodes bring is reckoned for a fabric
        return pool[0]
    known = wishes.cluster_nodes is not None and wishes.goal != "Latency"
    least = max(merit(wishes, candidate) for candidate in pool)
    least *= 1 - GIVEN_FOR_SMALLER_REPLICAS if known else 1 / WORTH_MORE_NODES
    return next(candidate for candidate in pool if merit(wishes, candidate) >= least)


def merit(wishes: Wishes, candidate: Candidate) -> float:
    """What node counts are compared by, larger is better: the tokens per second of a GPU, or of all the replicas that
    the cluster has room for; with objective Latency the tokens per second of one request."""
    if candidate.estimate is None:
        return 0.0
    if wishes.goal == "Latency":
        return 1000 / score(wishes, candidate)
    if wishes.cluster_nodes is not None:
        return candidate.estimate.tokens_per_second * (wishes.cluster_nodes // candidate.nodes)
    return candidate.estimate.tokens_per_second / candidate.gpus


def score(wishes: Wishes, candidate: Candidate) -> float:
    """What layouts on the same nodes are compared by, smaller is better."""
    expected = candidate.estimate
    if expected is None:  # trying out: the full model's shape, so attention DP and expert parallelism where possible
        return -float(candidate.layout.attention_dp * 1000 + candidate.layout.expert_parallel)
    if wishes.goal != "Latency":
        return -expected.tokens_per_second
    # At the same few requests for all: a layout must not look fast because it holds fewer.
    return estimate(
        wishes.model,
        wishes.profile,
        candidate.layout,
        candidate.nodes,
        candidate.limits,
        candidate.kv_tokens,
        wishes.load,
        kv_itemsize=wishes.kv_itemsize,
        concurrency=LATENCY_REQUESTS,
    ).tpot_ms


def _moving_parts(layout: Layout) -> int:
    """What can go wrong at run time: an all-to-all backend, expert spreading, copies of experts, attention DP."""
    return (
        4 * (layout.all_to_all is not AllToAll.NONE)
        + 2 * (layout.expert_parallel > 1)
        + (layout.redundant_experts > 0)
        + (layout.attention_dp > 1)
    )
