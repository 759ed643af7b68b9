"""How many nodes a replica takes, on machines of any size: against each count planned by itself."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from r1_operator.planning.around import around
from r1_operator.planning.catalog import find_model
from r1_operator.planning.hardware import Figures
from r1_operator.planning.layout import AllToAll
from r1_operator.planning.make import plan_wishes
from r1_operator.planning.performance import ESTIMATE_ERROR
from r1_operator.planning.plan import Plan, Refusal
from r1_operator.planning.search import MOST_NODES_SEARCHED
from r1_operator.planning.wishes import Slo, Wishes

FULL = ("deepseek-ai/DeepSeek-R1", "Barrrrry/DeepSeek-R1-W4AFP8", "unsloth/DeepSeek-R1-BF16")


@st.composite
def nodes_of_any_kind(draw: st.DrawFn) -> Figures:
    memory = draw(st.integers(40, 280)) * 1024
    return Figures(
        name="any",
        gpus_per_node=draw(st.sampled_from([2, 4, 8])),
        memory_mib=memory,
        usable_memory_mib=memory - 2048,
        bf16_tflops=draw(st.sampled_from([150, 990, 2250])),
        fp8_tflops=draw(st.sampled_from([300, 1979, 4500])),
        memory_bandwidth_gbytes_per_second=draw(st.sampled_from([2000, 3350, 8000])),
        nvlink_gbytes_per_second=draw(st.sampled_from([100, 450, 900])),
        network_gbits_per_second=draw(st.sampled_from([0, 100, 3200])),
    )


@st.composite
def open_wishes(draw: st.DrawFn) -> Wishes:
    """What leaves the number of nodes open."""
    model = find_model(draw(st.sampled_from(FULL)))
    assert model is not None
    goal = draw(st.sampled_from(["Throughput", "Throughput", "Latency", "SLO"]))
    return Wishes(
        model=model,
        profile=draw(nodes_of_any_kind()),
        goal=goal,
        slo=Slo(tpot_ms=draw(st.sampled_from([40, 150]))) if goal == "SLO" else Slo(),
        all_to_all=draw(st.sampled_from([None, None, *AllToAll])),
        context_length=draw(st.sampled_from([None, None, 32768, 131072])),
        kv_token_cap=draw(st.sampled_from([None, None, None, 50_000])),
        over_tcp=draw(st.sampled_from([False, False, True])),
    )


def alone(wishes: Wishes, nodes: int) -> Plan | None:
    """The plan on just so many nodes."""
    plan = plan_wishes(replace(wishes, nodes=nodes, cluster_nodes=None))
    return plan if isinstance(plan, Plan) else None


def rate(plan: Plan) -> float:
    assert plan.estimate is not None
    return plan.estimate.tokens_per_second


@given(open_wishes())
@settings(max_examples=60, deadline=None)
def test_the_context_is_kept_where_it_can_be_and_more_nodes_are_worth_it(asked: Wishes) -> None:
    plan = plan_wishes(asked)
    if isinstance(plan, Refusal):
        assert all(alone(asked, nodes) is None for nodes in (1, 2, 4, MOST_NODES_SEARCHED))
        return
    nodes = plan.nodes_per_replica
    smaller = [found for n in range(1, nodes) if (found := alone(asked, n))]
    fewest = smaller[0].nodes_per_replica if smaller else nodes
    assert nodes <= 2 * fewest
    assert alone(asked, nodes) is not None
    if plan.cuts_context:
        most = min(2 * fewest, MOST_NODES_SEARCHED)
        larger = [found for n in range(nodes, most + 1) if (found := alone(asked, n))]
        assert all(other.cuts_context for other in (*smaller, *larger))
    if plan.smallest is not None:
        assert plan.smallest.nodes == fewest
    for other in smaller:
        keeps_as_much = plan.cuts_context or not other.cuts_context
        if keeps_as_much and asked.over_tcp:
            raise AssertionError("over TCP the fewest are taken")
        if keeps_as_much and asked.goal != "Latency":
            assert rate(other) / other.gpus_per_replica < rate(plan) / plan.gpus_per_replica


@given(open_wishes())
@settings(max_examples=40, deadline=None)
def test_fewer_nodes_give_away_no_more_than_the_error_of_the_estimate(asked: Wishes) -> None:
    plan = plan_wishes(replace(asked, over_tcp=False))
    assume(isinstance(plan, Plan) and asked.goal != "Latency")
    assert isinstance(plan, Plan)
    fewest = plan.smallest.nodes if plan.smallest else plan.nodes_per_replica
    worth = (1 + ESTIMATE_ERROR) / (1 - ESTIMATE_ERROR)
    for nodes in range(plan.nodes_per_replica + 1, min(2 * fewest, MOST_NODES_SEARCHED) + 1):
        other = alone(replace(asked, over_tcp=False), nodes)
        if other is not None and (plan.cuts_context or not other.cuts_context):
            gain = rate(other) / other.gpus_per_replica / (rate(plan) / plan.gpus_per_replica)
            assert gain <= worth * 1.000001


@given(open_wishes(), st.integers(1, MOST_NODES_SEARCHED))
@settings(max_examples=60, deadline=None)
def test_of_a_cluster_no_more_is_taken_than_it_has_and_nearly_the_most_is_made_of_it(asked: Wishes, there: int) -> None:
    asked = replace(asked, over_tcp=False)
    plan = plan_wishes(replace(asked, cluster_nodes=there))
    others = [found for n in range(1, there + 1) if (found := alone(asked, n))]
    if isinstance(plan, Refusal):
        assert not others
        return
    assert plan.nodes_per_replica <= there
    keeping = [other for other in others if not other.cuts_context]
    assert not keeping or not plan.cuts_context
    if asked.goal != "Latency":
        made = rate(plan) * (there // plan.nodes_per_replica)
        assert made >= 0.749 * max(rate(o) * (there // o.nodes_per_replica) for o in keeping or others)


@given(open_wishes(), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_what_is_said_of_other_counts_is_what_would_be_planned_there(asked: Wishes, nodes: int) -> None:
    plan = alone(asked, nodes)
    assume(plan is not None)
    assert plan is not None
    told = dict(around(asked, plan))
    assert {nodes + 1, 2 * nodes} <= set(told)
    assert (nodes - 1 in told) == (nodes > 1)
    for count, size in told.items():
        there = alone(asked, count)
        if there is None:
            assert isinstance(size, Refusal)
            assert size.message
            continue
        assert not isinstance(size, Refusal)
        assert (size.layout, size.context_length) == (there.layout, there.limits.context_length)
        assert size.tokens_per_second == rate(there)
