"""Which node counts and layouts are worth judging. What wins among those that work: `prefer.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from r1_operator.api.names import MAX_NODES_PER_REPLICA

from .checks import DP, TP
from .layout import AllToAll, Layout
from .model import Dense, MlaMoe, Quantization
from .plan import Refusal
from .prefer import choose, most_nodes, rank
from .sizing import Candidate, judge
from .weights import BLOCK
from .wishes import Wishes

T = TypeVar("T")

NODES = "spec.topology.nodesPerReplica"
MOST_NODES_SEARCHED = min(16, MAX_NODES_PER_REPLICA)
# Copies of busy experts that make attention DP over several nodes worth it (DeepSeek's and LMSYS' deployments use 32).
USUAL_REDUNDANT = 32
LEAST_RANKS_FOR_REDUNDANT = 32


@dataclass(frozen=True, slots=True)
class Found:
    """The best candidate, and all others of as many nodes, best first. `sizes`: the best of each other node count
    that was looked at and works; `refused`: what does not."""

    best: Candidate
    others: tuple[Candidate, ...]
    refused: tuple[tuple[Layout, Refusal], ...]
    sizes: tuple[Candidate, ...] = ()


def search(wishes: Wishes) -> Found | Refusal:
    """The best candidate on the best number of nodes; or the refusal of the likeliest layout."""
    tried: list[tuple[Layout, Refusal]] = []
    sizes = _node_counts(wishes)
    if isinstance(sizes, Refusal):
        return sizes
    ranked: dict[int, list[Candidate]] = {}
    for nodes in sizes:
        if ranked and nodes > most_nodes(wishes, min(ranked)):
            break
        works: list[Candidate] = []
        for layout in layouts(wishes, nodes):
            result = judge(wishes, layout, nodes)
            if isinstance(result, Candidate):
                works.append(result)
            else:
                tried.append((layout, result))
        if works:
            ranked[nodes] = rank(wishes, works)
    if ranked:
        best = choose(wishes, [works[0] for works in ranked.values()])
        other_sizes = tuple(works[0] for nodes, works in ranked.items() if nodes != best.nodes)
        return Found(best, tuple(ranked[best.nodes][1:]), tuple(tried), other_sizes)
    if tried:
        return max(tried, key=lambda pair: _nearness(pair[1]))[1]
    return Refusal(TP, f"no layout of {wishes.model.name} exists for {wishes.profile.name}", "unset spec.topology")


def layouts(wishes: Wishes, nodes: int) -> Iterator[Layout]:
    """Layouts over `nodes` nodes that agree with what the user fixed, the likeliest first."""
    gpus = nodes * wishes.profile.gpus_per_node
    if isinstance(wishes.model.architecture, Dense):
        yield from _dense_layouts(wishes, gpus)
        return
    tp = wishes.tensor_parallel or gpus
    for dp in _pick(wishes.attention_dp, _attention_dps(wishes, tp)):
        for backend in _pick(wishes.all_to_all, _backends(wishes, dp, tp, nodes)):
            for ep in _pick(wishes.expert_parallel, _expert_parallels(wishes, backend, tp)):
                for redundant in _pick(wishes.redundant_experts, _redundants(wishes, backend, ep)):
                    for draft in _pick(wishes.draft, _drafts(wishes)):
                        yield Layout(
                            tensor_parallel=tp,
                            attention_dp=dp,
                            expert_parallel=ep,
                            redundant_experts=redundant,
                            all_to_all=backend,
                            dp_lm_head=dp > 1 and dp == tp and backend is AllToAll.DEEPEP,
                            dense_tp_one=_dense_tp_one(wishes, tp, backend),
                            draft=draft,
                            copies=max(1, gpus // tp),
                        )


def _dense_layouts(wishes: Wishes, gpus: int) -> Iterator[Layout]:
    sizes = [n for n in range(1, gpus + 1) if gpus % n == 0]
    for tp in _pick(wishes.tensor_parallel, tuple(reversed(sizes))):
        yield Layout(
            tensor_parallel=tp,
            attention_dp=wishes.attention_dp or 1,
            expert_parallel=wishes.expert_parallel or 1,
            redundant_experts=wishes.redundant_experts or 0,
            all_to_all=wishes.all_to_all or AllToAll.NONE,
            draft=bool(wishes.draft),
            copies=max(1, gpus // tp),
        )


def _node_counts(wishes: Wishes) -> tuple[int, ...] | Refusal:
    """Node counts to try, in order; none beyond what the cluster is said to have."""
    counts, there = _wished_counts(wishes), wishes.cluster_nodes
    if isinstance(counts, Refusal) or there is None:
        return counts
    if counts[0] <= there:
        return tuple(nodes for nodes in counts if nodes <= there)
    field = NODES if wishes.nodes is not None else TP
    return Refusal(field, f"a replica of {counts[0]} nodes, and the cluster has {there}", "ask for less, or unset it")


def _wished_counts(wishes: Wishes) -> tuple[int, ...] | Refusal:
    per_node, tp = wishes.profile.gpus_per_node, wishes.tensor_parallel
    dense = isinstance(wishes.model.architecture, Dense)
    if dense and (wishes.nodes or 1) > 1:
        return Refusal(
            NODES, f"{wishes.model.name} fits one node and gains nothing from {wishes.nodes}", "use replicas"
        )
    if tp is None:
        if wishes.nodes is not None:
            return (wishes.nodes,)
        return (1,) if dense or wishes.profile.device == "Cpu" else tuple(range(1, MOST_NODES_SEARCHED + 1))
    if wishes.nodes is None and tp > per_node:
        if tp % per_node:
            return Refusal(
                TP,
                f"{tp} ranks do not fill whole nodes of {per_node} GPUs, and a replica takes whole nodes",
                f"set {tp // per_node * per_node} or {(tp // per_node + 1) * per_node}",
            )
        return (tp // per_node,)
    nodes = wishes.nodes or 1
    gpus = nodes * per_node
    if tp == gpus or (nodes == 1 and tp < gpus and gpus % tp == 0 and dense):
        return (nodes,)
    return Refusal(
        TP,
        f"{tp} ranks on {nodes} node(s) of {per_node} GPUs: a replica uses each of its {gpus} GPUs",
        f"set {gpus}" + (f", or nodesPerReplica {tp // per_node}" if tp % per_node == 0 else ""),
    )


def _attention_dps(wishes: Wishes, tp: int) -> tuple[int, ...]:
    """All heads on each rank, or all ranks on each request: what lies between is asked for by name only."""
    if wishes.profile.device == "Cpu":
        return (tp, 1) if tp > 1 else (1,)
    return (1, tp) if tp > 1 else (1,)


def _backends(wishes: Wishes, dp: int, tp: int, nodes: int) -> tuple[AllToAll, ...]:
    if wishes.profile.device == "Cpu" or dp == 1 or tp == 1 or (wishes.over_tcp and nodes > 1):
        return (AllToAll.NONE,)
    return (AllToAll.NONE, AllToAll.DEEPEP)


def _expert_parallels(wishes: Wishes, backend: AllToAll, tp: int) -> tuple[int, ...]:
    if backend is not AllToAll.NONE or wishes.redundant_experts:
        return (tp,)
    return (1, tp) if tp > 1 else (1,)


def _redundants(wishes: Wishes, backend: AllToAll, ep: int) -> tuple[int, ...]:
    arch = wishes.model.architecture
    assert isinstance(arch, MlaMoe)
    least = -arch.routed_experts % ep
    usual = USUAL_REDUNDANT - (arch.routed_experts + USUAL_REDUNDANT) % ep
    if backend is AllToAll.DEEPEP and ep >= LEAST_RANKS_FOR_REDUNDANT and usual > least:
        return (least, usual)
    return (least,)


def _dense_tp_one(wishes: Wishes, tp: int, backend: AllToAll) -> bool:
    """Whole dense layers on each rank: needed where their FP8 shards would break a block, and cheap beside DeepEP."""
    arch = wishes.model.architecture
    assert isinstance(arch, MlaMoe)
    broken = wishes.model.quantization is not Quantization.BF16 and arch.intermediate % (tp * BLOCK) != 0
    return tp > 1 and arch.dense_layers > 0 and (broken or (backend is AllToAll.DEEPEP and tp >= 16))


def _drafts(wishes: Wishes) -> tuple[bool, ...]:
    """Drafting pays where batches are small; at full batches its extra tokens cost what they gain."""
    arch = wishes.model.architecture
    available = isinstance(arch, MlaMoe) and arch.draft_layers > 0 and wishes.profile.device != "Cpu"
    if not available or wishes.goal == "Throughput":
        return (False,)
    return (True,) if wishes.goal == "Latency" else (False, True)


def _pick(fixed: T | None, options: tuple[T, ...]) -> tuple[T, ...]:
    return options if fixed is None else (fixed,)


def _nearness(refusal: Refusal) -> int:
    """The refusal that says most: memory arithmetic before what cannot be built, unless the user asked for that."""
    return 0 if refusal.field in (DP, TP) else 1
