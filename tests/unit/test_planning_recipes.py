"""Public configurations of R1 and V3, with the verdict each really has: it runs, cannot fit, cannot start, or is wrong.

A recipe that leaves the memory fraction out gets the value that SGLang 0.5.23 resolves for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from r1_operator.planning.catalog import find_model
from r1_operator.planning.hardware import built_in_profiles
from r1_operator.planning.layout import AllToAll, Layout
from r1_operator.planning.plan import Refusal
from r1_operator.planning.sizing import judge
from r1_operator.planning.wishes import Wishes

FP8, BF16, W4A8 = "deepseek-ai/DeepSeek-R1", "unsloth/DeepSeek-R1-BF16", "Barrrrry/DeepSeek-R1-W4AFP8"
DEEPEP = AllToAll.DEEPEP
RUNS = None
CANNOT_FIT = "GiB"  # the message carries the arithmetic
CANNOT_START = "FP8 block"
WRONG_NUMBERS = "wrong numbers"


@dataclass(frozen=True)
class Recipe:
    """Where it is published, and what it asks for."""

    source: str
    hardware: str
    nodes: int
    layout: Layout
    fraction: float
    verdict: str | None
    model: str = FP8
    context: int = 4096
    running: int = 64


def wide(tp: int, redundant: int = 32) -> Layout:
    """LMSYS' wide expert parallelism: attention DP, DeepEP, whole heads and dense layers on each rank."""
    return Layout(tp, tp, tp, redundant, DEEPEP, dp_lm_head=True, dense_tp_one=True)


RECIPES = [
    Recipe("SGLang docs, DeepSeek usage: 8 x H200", "H200x8", 1, Layout(8), 0.886, RUNS),
    Recipe("SGLang docs, DeepSeek usage: 8 x H200 with DP attention", "H200x8", 1, Layout(8, 8), 0.758, RUNS),
    Recipe("SGLang docs, multi-node: 2 x 8 x H100, tp 16", "H100x8", 2, Layout(16), 0.787, RUNS),
    Recipe("SGLang docs, DeepSeek usage: 2 x 8 x H20", "H20x8", 2, Layout(16), 0.82, RUNS),
    Recipe("SGLang docs, DeepSeek usage: BF16 on 2 x 8 x H200", "H200x8", 2, Layout(16), 0.886, RUNS, BF16),
    Recipe("SGLang docs, DeepSeek usage: BF16 on 4 x 8 x H100", "H100x8", 4, Layout(32), 0.75, RUNS, BF16),
    Recipe("SGLang docs, DeepSeek usage: W4A8 on 8 x H100", "H100x8", 1, Layout(8), 0.80, RUNS, W4A8),
    Recipe("SGLang docs, DeepSeek usage: W4A8 on 4 x H200", "H200x4", 1, Layout(4), 0.886, RUNS, W4A8),
    Recipe("open-r1, serve_r1.slurm: 2 x 8 x H100", "H100x8", 2, Layout(16), 0.787, RUNS),
    Recipe("SkyPilot, DeepSeek-R1 with SGLang on 2 nodes of H100:8", "H100x8", 2, Layout(16), 0.787, RUNS),
    Recipe("LMSYS large-scale EP / Dynamo wide EP, prefill on 4 nodes", "H100x8", 4, wide(32), 0.85, RUNS),
    Recipe(
        "LMSYS large-scale EP / Dynamo wide EP, decode on 9 nodes", "H100x8", 9, wide(72), 0.835, RUNS, running=18432
    ),
    Recipe("SGLang docs, LWS PD: prefill on 2 nodes at 0.7", "H100x8", 2, wide(16), 0.70, CANNOT_FIT, context=32768),
    Recipe("SGLang docs, LWS PD: decode on 2 nodes", "H100x8", 2, wide(16), 0.849, RUNS, context=32768, running=2048),
    Recipe("OME, srt-deepseek-rdma-pd: decode", "H100x8", 2, wide(16), 0.849, RUNS, context=32768, running=2048),
    Recipe("OME, srt-deepseek-rdma: tp 16 with DeepEP", "H100x8", 2, Layout(16, 1, 16, 0, DEEPEP), 0.749, RUNS),
    Recipe("Dynamo, deepseek-r1 disagg-8gpu: decode", "H200x8", 1, Layout(8, 8, 8), 0.75, RUNS),
    Recipe("Dynamo, deepseek-r1 disagg-8gpu: prefill", "H200x8", 1, Layout(8, 1, 8), 0.75, RUNS),
    Recipe("Ant Group on LMSYS: prefill TP8 on H20", "H20x8", 1, Layout(8), 0.92, RUNS),
    Recipe("Ant Group on LMSYS: decode EP16 on H20", "H20x8", 2, Layout(16, 16, 16, 0, DEEPEP), 0.85, RUNS),
    Recipe("server-install, ds-v3-671b-8.sh: 8 x H20 at 0.9", "H20x8", 1, Layout(8), 0.90, RUNS),
    Recipe("GPUStack lab: 8 x H200", "H200x8", 1, Layout(8, 8), 0.758, RUNS),
    Recipe("a full FP8 R1 on one node of 8 x H100", "H100x8", 1, Layout(8), 0.95, CANNOT_FIT),
    Recipe("2 x 8 x H100, DP attention 16, default fraction", "H100x8", 2, Layout(16, 16), 0.335, CANNOT_FIT),
    Recipe("the same with DeepEP", "H100x8", 2, Layout(16, 16, 16, 0, DEEPEP), 0.297, CANNOT_FIT),
    Recipe("4 x 8 x H100, DP attention 32, default fraction", "H100x8", 4, wide(32), -0.18, CANNOT_FIT),
    Recipe("4 x 8 x H100, tp 32 without --moe-dense-tp-size 1", "H100x8", 4, Layout(32), 0.85, CANNOT_START),
    Recipe("SGLang issue 31700's layout", "H100x8", 2, Layout(16, 8), 0.80, WRONG_NUMBERS),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.source)
def test_each_public_recipe_gets_the_verdict_it_really_has(recipe: Recipe) -> None:
    model = find_model(recipe.model)
    assert model is not None
    wishes = Wishes(
        model=model,
        profile=built_in_profiles()[recipe.hardware],
        context_length=recipe.context,
        max_running_requests=max(recipe.running, recipe.layout.attention_dp),
        memory_fraction=recipe.fraction,
    )
    result = judge(wishes, recipe.layout, recipe.nodes)
    if recipe.verdict is RUNS:
        assert not isinstance(result, Refusal), str(result)
    else:
        assert isinstance(result, Refusal)
        assert recipe.verdict in result.message
        assert result.remedy
