"""/metrics of one node: its own ranks, in SGLang's names and labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.standin.pod import Pod

GAUGES = {
    "num_running_reqs": ("num_running_reqs", "The number of running requests."),
    "num_queue_reqs": ("num_waiting_reqs", "The number of requests in the waiting queue."),
    "token_usage": ("token_usage", "The token usage."),
    "full_token_usage": ("token_usage", "The token usage for full attention layers."),
    "gen_throughput": ("gen_throughput", "The generation throughput (token/s)."),
    "kv_used_tokens": ("num_used_tokens", "Number of actively used token slots in the KV cache pool."),
    "max_total_num_tokens": ("max_total_num_tokens", "Maximum total number of tokens in the KV cache pool."),
}


def exposition(pod: Pod) -> str:
    """Prometheus text. A node reports the ranks that would run on it; node 0 also the counters of the HTTP server."""
    chosen = pod.settings
    everything: list[Any] = list(pod.loads() if pod.is_head else pod.head_loads)
    per_node = max(1, chosen.ranks // chosen.nodes)
    own = [load for load in everything if min(load["dp_rank"] // per_node, chosen.nodes - 1) == chosen.node_index]
    lines = []
    for name, (key, text) in GAUGES.items():
        lines += [f"# HELP sglang:{name} {text}", f"# TYPE sglang:{name} gauge"]
        lines += [f"sglang:{name}{{{_labels(chosen.served_name, load)}}} {float(load[key])}" for load in own]
    if pod.is_head:
        counters = {
            "prompt_tokens_total": sum(rank.prompt_total for rank in pod.ranks),
            "generation_tokens_total": sum(rank.generated_total for rank in pod.ranks),
        }
        for name, value in counters.items():
            lines += [f"# TYPE sglang:{name} counter"]
            lines += [f'sglang:{name}{{engine_type="unified",model_name="{chosen.served_name}"}} {float(value)}']
    return "\n".join(lines) + "\n"


def _labels(model: str, load: Mapping[str, Any]) -> str:
    rank = load["dp_rank"]
    return (
        f'dp_rank="{rank}",engine_type="unified",model_name="{model}",moe_ep_rank="{rank}",pp_rank="0",tp_rank="{rank}"'
    )
