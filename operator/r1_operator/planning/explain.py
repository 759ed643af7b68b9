"""Why a plan is as it is: each choice in one line, with what it was preferred to."""

from __future__ import annotations

from .deepep import DISPATCH_VARIABLE, decodes_with_deepep, dispatch_tokens, step_tokens
from .engine_args import CPU_MAX_TOTAL_TOKENS
from .layout import AllToAll
from .memory import MTP_DRAFT_TOKENS, SGLANG_PREFIX_CHUNK, prefix_chunk
from .model import Dense
from .overrides import flags
from .plan import Reason
from .prefer import GIVEN_FOR_SMALLER_REPLICAS, WORTH_MORE_NODES, merit
from .search import Found
from .sizing import Candidate, keeps_context, own_context
from .units import gib
from .wishes import Wishes

SHOWN_ALTERNATIVES = 3


def reasons(wishes: Wishes, found: Found) -> tuple[Reason, ...]:
    """The reasons of the best candidate, in the order of its choices."""
    best = found.best
    listed = [_nodes(wishes, found), _layout(wishes, found)]
    if best.layout.draft:
        listed.append(_fixed(wishes.draft) or _draft(wishes))
    listed += [_fraction(wishes, best), _context(wishes, best), _running(wishes, best)]
    if wishes.profile.device != "Cpu":
        listed += [_chunk(wishes, best), _pages(wishes, best)]
        if wishes.role != "Prefill":
            listed.append(_graphs(wishes, best))
        if not isinstance(wishes.model.architecture, Dense) and prefix_chunk(best.layout) < SGLANG_PREFIX_CHUNK:
            listed.append(_prefix(best))
        if decodes_with_deepep(best.layout, wishes.role):
            listed.append(_dispatch(wishes, best))
    if wishes.extra_args:
        listed.append(Reason("engine arguments", " ".join(flags(wishes.extra_args)), "set by spec.engine.args"))
    return tuple(listed)


def _fixed(value: object) -> Reason | None:
    return None if value is None else Reason("multi-token prediction", str(value), "fixed by the user")


def _nodes(wishes: Wishes, found: Found) -> Reason:
    best = found.best
    value = f"{best.nodes} × {wishes.profile.gpus_per_node} GPUs"
    if wishes.nodes is not None:
        return Reason("nodes per replica", value, "fixed by the user")
    if wishes.profile.device == "Cpu":
        return Reason("nodes per replica", value, "trying out needs no more")
    if isinstance(wishes.model.architecture, Dense):
        return Reason(
            "nodes per replica", value, f"{gib(best.memory.weight_bytes)} of weights per GPU leave room for KV"
        )
    worked = {candidate.nodes: str(candidate.size) for candidate in found.sizes}
    fewest = min((*worked, best.nodes))
    beat = [f"{nodes}: {told}" for nodes, told in worked.items()]
    if fewest > 1:
        beat.insert(0, f"{fewest - 1}: {_why_not(found, fewest - 1)}")
    return Reason("nodes per replica", value, _why_nodes(wishes, found), tuple(beat))


def _why_nodes(wishes: Wishes, found: Found) -> str:
    """What the number of nodes was chosen for, and what more would bring."""
    best = found.best
    if wishes.cluster_nodes is not None and wishes.goal != "Latency":
        return (
            f"of {wishes.cluster_nodes} nodes in the cluster; the smallest replicas whose sum is within "
            f"{GIVEN_FOR_SMALLER_REPLICAS:.0%} of the most"
        )
    kept = keeps_context(wishes, best)
    peers = [candidate for candidate in found.sizes if keeps_context(wishes, candidate) or not kept]
    what = "the tokens per second of " + ("a request" if wishes.goal == "Latency" else "each GPU")
    fewer = [merit(wishes, candidate) for candidate in peers if candidate.nodes < best.nodes]
    if fewer:
        return f"{merit(wishes, best) / fewer[0]:.1f} times {what} on the fewest"
    smaller = any(candidate.nodes < best.nodes for candidate in found.sizes)
    fewest = f"the fewest that keep a context of {own_context(wishes)}" if smaller else "the fewest that hold the model"
    if wishes.over_tcp:
        return f"{fewest}; what more would bring over TCP is not known"
    more = max((merit(wishes, c) for c in peers if c.nodes > best.nodes), default=0.0) / merit(wishes, best)
    if more <= 1:
        return fewest
    return f"{fewest}; more bring at most {more:.1f} times {what}, and {WORTH_MORE_NODES:.1f} are asked for"


def _why_not(found: Found, nodes: int) -> str:
    gpus = found.best.layout.gpus // found.best.nodes * nodes
    return next((refusal.message for layout, refusal in found.refused if layout.gpus == gpus), "does not fit")


def _layout(wishes: Wishes, found: Found) -> Reason:
    best = found.best
    layout = best.layout
    asked = {
        "tensorParallel": wishes.tensor_parallel,
        "attentionDataParallel": wishes.attention_dp,
        "expertParallel": wishes.expert_parallel,
        "redundantExperts": wishes.redundant_experts,
        "moeA2aBackend": wishes.all_to_all,
    }
    fixed = [name for name, value in asked.items() if value is not None]
    if best.estimate is None:
        because = "the shape of the full model at the smallest size"
    elif wishes.goal == "Latency":
        because = f"lowest time per token expected, or within the estimate's margin: {best.estimate.tpot_ms:.1f} ms"
    elif layout.all_to_all is AllToAll.DEEPEP:
        because = f"{_most(best)}; attention DP keeps each KV token once, DeepEP sends tokens only to their experts"
    elif layout.attention_dp > 1:
        because = f"{_most(best)}; attention DP keeps each KV token once"
    else:
        because = _most(best)
    if fixed:
        because = f"fixed by the user: {', '.join(fixed)}; the rest: {because}"
    return Reason("layout", layout.describe(), because, _alternatives(wishes, found))


def _most(best: Candidate) -> str:
    assert best.estimate is not None
    return f"most tokens per second expected, or within the estimate's margin: {best.estimate.tokens_per_second:.0f}"


def _alternatives(wishes: Wishes, found: Found) -> tuple[str, ...]:
    shown = []
    for other in found.others[:SHOWN_ALTERNATIVES]:
        expected = other.estimate
        cut = "" if keeps_context(wishes, other) else f", context {other.limits.context_length}"
        if expected is None:
            shown.append(other.layout.describe())
        elif wishes.goal == "Latency":
            shown.append(f"{other.layout.describe()}: {expected.tpot_ms:.1f} ms{cut}")
        else:
            shown.append(f"{other.layout.describe()}: {expected.tokens_per_second:.0f} tok/s{cut}")
    return tuple(shown)


def _draft(wishes: Wishes) -> Reason:
    return Reason(
        "multi-token prediction", "3 steps", "latency: about 2.4 tokens a step at these batch sizes", ("off",)
    )


def _fraction(wishes: Wishes, best: Candidate) -> Reason:
    memory = best.memory
    value = f"{memory.fraction:.3f}"
    if wishes.memory_fraction is not None:
        short = memory.slack_needed > memory.slack_bytes
        risk = f"; leaves {gib(memory.slack_bytes)} where {gib(memory.slack_needed)} are advised" if short else ""
        return Reason("memory fraction", value, "fixed by the user" + risk)
    if wishes.profile.device == "Cpu":
        return Reason(
            "memory fraction", value, f"CPU mode: the KV cache is set to {CPU_MAX_TOTAL_TOKENS} tokens instead"
        )
    return Reason(
        "memory fraction",
        value,
        f"leaves {gib(memory.slack_bytes)} for {', '.join(f'{p.name} {gib(p.bytes)}' for p in memory.slack)}",
        ("SGLang's default, which looks at the GPU and not at the model",),
    )


def _context(wishes: Wishes, best: Candidate) -> Reason:
    context, most = best.limits.context_length, wishes.model.architecture.context
    if wishes.context_length is not None:
        return Reason("context length", str(context), "fixed by the user")
    if context == most:
        return Reason("context length", str(context), "the model's own")
    return Reason(
        "context length",
        str(context),
        f"cut: one request must fit the {best.kv_tokens} KV tokens of a rank",
        (f"{most}, the model's own",),
    )


def _running(wishes: Wishes, best: Candidate) -> Reason:
    value = str(best.limits.max_running_requests)
    if wishes.max_running_requests is not None:
        return Reason("running requests", value, "fixed by the user")
    if best.estimate is None:
        return Reason("running requests", value, "enough for trying out")
    if wishes.goal == "Latency":
        return Reason("running requests", value, "latency: more would share the same memory bandwidth")
    return Reason(
        "running requests",
        value,
        f"at {wishes.load.resident_tokens} KV tokens each they fit {best.kv_tokens} tokens per rank",
    )


def _chunk(wishes: Wishes, best: Candidate) -> Reason:
    value = str(best.limits.chunked_prefill_size)
    if wishes.chunked_prefill_size is not None:
        return Reason("prefill chunk", value, "fixed by the user")
    per_rank = best.limits.chunked_prefill_size // best.layout.attention_dp
    return Reason("prefill chunk", value, f"{per_rank} tokens on each attention rank: SGLang divides the total by them")


def _pages(wishes: Wishes, best: Candidate) -> Reason:
    if isinstance(wishes.model.architecture, Dense):
        return Reason("page size", str(best.limits.page_size), "SGLang's own for grouped-query attention")
    return Reason(
        "page size", str(best.limits.page_size), "the block that FlashMLA reads and KV transfer sends", ("1",)
    )


def _graphs(wishes: Wishes, best: Candidate) -> Reason:
    value = str(best.limits.graph_batch)
    if wishes.graph_batch is not None:
        return Reason("decode graphs up to", value, "fixed by the user")
    return Reason("decode graphs up to", value, "requests of one attention rank: no batch decodes without a graph")


def _dispatch(wishes: Wishes, best: Candidate) -> Reason:
    value = str(dispatch_tokens(best.layout, best.limits, MTP_DRAFT_TOKENS))
    if wishes.dispatch_tokens is not None:
        return Reason(DISPATCH_VARIABLE, value, "set by spec.engine.env")
    tokens = step_tokens(best.layout, best.limits.max_running_requests, MTP_DRAFT_TOKENS)
    return Reason(
        DISPATCH_VARIABLE,
        value,
        f"DeepEP ends the engine in a larger decode step; a rank's largest has {tokens} tokens",
    )


def _prefix(best: Candidate) -> Reason:
    return Reason(
        "SGLANG_MAX_KV_CHUNK_CAPACITY",
        str(prefix_chunk(best.layout)),
        "whole attention on each rank expands a cached prefix to 112 KiB a token",
        (f"{SGLANG_PREFIX_CHUNK}, SGLang's default: 14 GiB",),
    )
