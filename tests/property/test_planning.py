"""What must hold of every plan, whatever is asked."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from r1_operator.planning.catalog import find_model
from r1_operator.planning.checks import layout_problem
from r1_operator.planning.deepep import (
    DISPATCH_VARIABLE,
    MOST_DISPATCH_TOKENS,
    decodes_with_deepep,
    low_latency_bytes,
    step_tokens,
)
from r1_operator.planning.disaggregate import BALANCE_MARGIN, MOST_GROUPS, balance
from r1_operator.planning.hardware import built_in_profiles
from r1_operator.planning.layout import AllToAll, Layout
from r1_operator.planning.make import plan_wishes
from r1_operator.planning.memory import MTP_DRAFT_TOKENS, hold, kv_bytes_per_token
from r1_operator.planning.model import MlaMoe, Model
from r1_operator.planning.overrides import flags, value_of
from r1_operator.planning.plan import Limits, Plan, Refusal, Role
from r1_operator.planning.weights import draft_parts, weight_bytes
from r1_operator.planning.wishes import Wishes

FULL = ("deepseek-ai/DeepSeek-R1", "Barrrrry/DeepSeek-R1-W4AFP8", "unsloth/DeepSeek-R1-BF16")
DISTILLED = ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B")
GPU_NODES = [name for name, profile in built_in_profiles().items() if profile.device == "Cuda"]
settings.register_profile("planning", deadline=None)
settings.load_profile("planning")


def model(name: str) -> Model:
    found = find_model(name)
    assert found is not None
    return found


R1 = model(FULL[0])
sizes = st.sampled_from([1, 2, 4, 8, 16, 24, 32, 64])
divisors = st.sampled_from([1, 2, 4, 8, 16, 32])


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    tp = draw(sizes)
    deepep = draw(st.booleans())
    return Layout(
        tensor_parallel=tp,
        attention_dp=draw(st.sampled_from([n for n in range(1, tp + 1) if tp % n == 0])),
        expert_parallel=tp if deepep else draw(st.sampled_from([n for n in range(1, tp + 1) if tp % n == 0])),
        redundant_experts=draw(st.sampled_from([0, 8, 32])),
        all_to_all=AllToAll.DEEPEP if deepep else AllToAll.NONE,
        dp_lm_head=draw(st.booleans()),
        dense_tp_one=draw(st.booleans()),
        draft=draw(st.booleans()),
    )


@st.composite
def wishes(draw: st.DrawFn) -> Wishes:
    return Wishes(
        model=model(draw(st.sampled_from(FULL + DISTILLED))),
        profile=built_in_profiles()[draw(st.sampled_from(GPU_NODES))],
        goal=draw(st.sampled_from(["Throughput", "Latency"])),
        nodes=draw(st.none() | st.integers(1, 6)),
        tensor_parallel=draw(st.none() | sizes),
        attention_dp=draw(st.none() | divisors),
        expert_parallel=draw(st.none() | divisors),
        redundant_experts=draw(st.none() | st.sampled_from([0, 32])),
        all_to_all=draw(st.none() | st.sampled_from(list(AllToAll))),
        context_length=draw(st.none() | st.sampled_from([64, 16384, 131072, 163840, 200000])),
        max_running_requests=draw(st.none() | st.sampled_from([1, 48, 256, 4096])),
        memory_fraction=draw(st.none() | st.sampled_from([0.3, 0.7, 0.85, 0.95])),
        chunked_prefill_size=draw(st.none() | st.sampled_from([64, 8192, 10000, 65536])),
    )


@given(wishes())
@settings(max_examples=150)
def test_a_plan_keeps_every_wish_and_never_exceeds_the_gpu(asked: Wishes) -> None:
    plan = plan_wishes(asked)
    if isinstance(plan, Refusal):
        assert plan.field.startswith("spec.")
        assert plan.message
        assert plan.remedy
        return
    memory = plan.memory
    assert memory.weight_bytes + memory.draft_bytes + memory.kv <= memory.fraction * memory.usable
    assert plan.kv_tokens_per_rank * memory.kv_bytes_per_token <= memory.kv
    assert plan.limits.context_length <= plan.kv_tokens_per_rank
    if asked.memory_fraction is None:
        assert memory.slack_needed <= memory.slack_bytes
    got = {
        "nodes": plan.nodes_per_replica,
        "tensor_parallel": plan.tensor_parallel,
        "attention_dp": plan.attention_data_parallel,
        "expert_parallel": plan.expert_parallel,
        "redundant_experts": plan.redundant_experts,
        "all_to_all": plan.layout.all_to_all,
        "context_length": plan.limits.context_length,
        "max_running_requests": plan.limits.max_running_requests,
        "memory_fraction": memory.fraction,
        "chunked_prefill_size": plan.limits.chunked_prefill_size,
    }
    assert {name: value for name, value in got.items() if getattr(asked, name) not in (None, value)} == {}


@given(wishes())
@settings(max_examples=60)
def test_a_plan_uses_all_its_gpus_with_a_layout_that_can_be_built(asked: Wishes) -> None:
    plan = plan_wishes(asked)
    assume(isinstance(plan, Plan))
    assert isinstance(plan, Plan)
    assert plan.layout.gpus == plan.nodes_per_replica * plan.gpus_per_node
    assert layout_problem(asked.model, plan.layout, plan.nodes_per_replica) is None
    assert len(set(flags(plan.engine_args))) == len(flags(plan.engine_args))
    assert value_of(plan.engine_args, "--tp-size") == str(plan.tensor_parallel)


@given(
    wishes(),
    st.sampled_from(["Aggregated", "Prefill", "Decode"]),
    st.none() | st.booleans(),
    st.none() | st.sampled_from([0, 1, 64, 128, 480, 1024, 2048]),
)
@settings(max_examples=150)
def test_no_decode_step_is_larger_than_deepep_sends(
    asked: Wishes, role: Role, draft: bool | None, fixed: int | None
) -> None:
    """It would be found out after the whole load. The buffer that the limit costs is in the memory."""
    plan = plan_wishes(replace(asked, role=role, draft=draft, dispatch_tokens=fixed))
    assume(isinstance(plan, Plan))
    assert isinstance(plan, Plan)
    limit = dict(plan.env).get(DISPATCH_VARIABLE)
    if not decodes_with_deepep(plan.layout, plan.role):
        assert limit is None
        return
    assert limit is not None
    arch = asked.model.architecture
    assert isinstance(arch, MlaMoe)
    step = step_tokens(plan.layout, plan.limits.max_running_requests, MTP_DRAFT_TOKENS)
    assert max(step, plan.limits.graph_batch) <= int(limit) <= MOST_DISPATCH_TOKENS
    assert fixed is None or int(limit) == fixed
    parts = {part.name: part.bytes for part in plan.memory.slack}
    assert parts["DeepEP buffer"] == low_latency_bytes(arch, plan.layout, int(limit))


@given(wishes())
@settings(max_examples=30)
def test_the_same_input_gives_the_same_plan(asked: Wishes) -> None:
    assert plan_wishes(asked) == plan_wishes(replace(asked))


@given(st.sampled_from(FULL), layouts())
def test_splitting_further_never_adds_weights(name: str, layout: Layout) -> None:
    """More ranks of the same kind hold no more each: attention over its group, experts over the ranks."""
    subject = model(name)
    wider = replace(
        layout,
        tensor_parallel=layout.tensor_parallel * 2,
        expert_parallel=layout.expert_parallel * (2 if layout.all_to_all is AllToAll.DEEPEP else 1),
    )
    assume(layout_problem(subject, layout, 1) is None and layout_problem(subject, wider, 1) is None)
    assert weight_bytes(subject, wider) <= weight_bytes(subject, layout)


@given(st.sampled_from(FULL), layouts())
def test_what_is_added_costs_memory(name: str, layout: Layout) -> None:
    """Redundant experts, whole heads and attention DP each cost weights, and the draft is never free."""
    subject = model(name)
    assume(layout_problem(subject, layout, 1) is None)
    with_draft = replace(layout, draft=True)
    assert sum(part.bytes for part in draft_parts(subject, with_draft)) > 0
    assert kv_bytes_per_token(subject, with_draft) > kv_bytes_per_token(subject, replace(layout, draft=False))
    for dearer in (
        replace(layout, redundant_experts=layout.redundant_experts + layout.expert_parallel),
        replace(layout, dp_lm_head=True),
        replace(layout, attention_dp=layout.tensor_parallel),
    ):
        if layout_problem(subject, dearer, 1) is None and layout.attention_dp > 1:
            assert weight_bytes(subject, dearer) >= weight_bytes(subject, layout)


@given(layouts(), st.integers(1, 2048), st.integers(64, 163840), st.sampled_from(["H100x8", "H200x8"]))
def test_kv_tokens_fall_with_every_limit(layout: Layout, running: int, context: int, hardware: str) -> None:
    assume(layout_problem(R1, layout, 1) is None)
    profile = built_in_profiles()[hardware]
    limits = Limits(context, running, 8192, 64, min(running, 512))
    tokens = hold(R1, profile, layout, limits).kv_tokens
    for more in (
        replace(limits, context_length=context * 2),
        replace(limits, max_running_requests=running * 2),
        replace(limits, chunked_prefill_size=limits.chunked_prefill_size * 2),
        replace(limits, graph_batch=limits.graph_batch * 2),
    ):
        assert hold(R1, profile, layout, more).kv_tokens <= tokens
    roomier = replace(profile, usable_memory_mib=profile.usable_memory_mib + 1024)
    assert hold(R1, roomier, layout, limits).kv_tokens >= tokens


@given(st.sampled_from(FULL), st.sampled_from(["H100x8", "H200x8", "H20x8", "B200x8"]), st.integers(1, 5))
@settings(max_examples=30)
def test_more_nodes_never_shrink_what_fits(name: str, hardware: str, nodes: int) -> None:
    """Doubling the nodes keeps a plan possible, and a rank's cache of the best plan no smaller."""
    asked = Wishes(model=model(name), profile=built_in_profiles()[hardware], attention_dp=None, nodes=nodes)
    fewer, more = plan_wishes(asked), plan_wishes(replace(asked, nodes=nodes * 2))
    if isinstance(fewer, Plan):
        assert isinstance(more, Plan)
        assert more.kv_tokens_per_replica >= fewer.kv_tokens_per_replica


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_prefill_and_decode_groups_are_balanced_or_the_best_up_to_the_limit(prefill: float, decode: float) -> None:
    groups = balance(prefill, decode)
    made, taken = groups[0] * prefill, groups[1] * decode
    idle = 1 - min(made, taken) / max(made, taken)
    assert max(groups) <= MOST_GROUPS
    if idle > BALANCE_MARGIN:
        for pair in ((p, d) for p in range(1, MOST_GROUPS + 1) for d in range(1, MOST_GROUPS + 1)):
            other = 1 - min(pair[0] * prefill, pair[1] * decode) / max(pair[0] * prefill, pair[1] * decode)
            assert idle <= other + 1e-9


def test_the_full_models_are_of_the_architecture_the_properties_assume() -> None:
    assert all(isinstance(model(name).architecture, MlaMoe) for name in FULL)
