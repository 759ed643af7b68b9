"""How many nodes a replica takes (docs/design/planning.md), and how that is told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from r1_operator.api.spec import R1DeploymentSpec
from r1_operator.api.types import R1DeploymentStatus
from r1_operator.cli.main import main
from r1_operator.lifecycle.gangs import GangState
from r1_operator.placement.place import Unplaceable
from r1_operator.planning import Plan, Refusal, make_plan
from r1_operator.planning.catalog import find_model
from r1_operator.planning.hardware import built_in_hardware, built_in_profiles
from r1_operator.planning.layout import AllToAll
from r1_operator.planning.make import plan_wishes
from r1_operator.planning.wishes import Wishes
from r1_operator.rounds.reading import Settings, read_subject
from r1_operator.status.derive import derive

from tests.unit.status_rounds import NOW, message, observed, view

R1, W4A8, BF16 = "deepseek-ai/DeepSeek-R1", "Barrrrry/DeepSeek-R1-W4AFP8", "unsloth/DeepSeek-R1-BF16"


def wishes(hardware: str, name: str = R1, **fixed: object) -> Wishes:
    model = find_model(name)
    assert model is not None
    return replace(Wishes(model=model, profile=built_in_hardware()[hardware]), **fixed)  # type: ignore[arg-type]


def planned(asked: Wishes) -> Plan:
    plan = plan_wishes(asked)
    assert isinstance(plan, Plan), str(plan)
    return plan


def resource(hardware: str, **spec: object) -> dict[str, object]:
    whole = {"model": {"name": R1, "weights": {"hostPath": {"path": "/data"}}}, "hardware": hardware, **spec}
    return {
        "apiVersion": "r1operator.dev/v1alpha1",
        "kind": "R1Deployment",
        "metadata": {"name": "r1", "namespace": "default", "uid": "u", "generation": 1},
        "spec": whole,
    }


@pytest.mark.parametrize(
    ("hardware", "model", "goal", "nodes"),
    [
        ("H100x8", R1, "Throughput", 2),  # the main case: four would bring 1.6 times a GPU, and need to be there
        ("H100x8", R1, "Latency", 2),
        ("H800x8", R1, "Throughput", 2),
        ("H200x8", R1, "Throughput", 1),
        ("B200x8", R1, "Throughput", 1),
        ("H20x8", R1, "Throughput", 2),  # one node: 78 tok/s a GPU and 59k of context
        ("H20x8", R1, "Latency", 2),
        ("H100x8", W4A8, "Throughput", 1),
        ("H100x8", BF16, "Throughput", 8),  # 9.4 times what four nodes bring a GPU
        ("H100x8", BF16, "Latency", 4),
        ("B200x8", BF16, "Throughput", 2),
    ],
)
def test_the_default_keeps_the_context_and_asks_for_more_nodes_only_where_it_pays(
    hardware: str, model: str, goal: str, nodes: int
) -> None:
    plan = planned(wishes(hardware, model, goal=goal))
    assert plan.nodes_per_replica == nodes
    assert not plan.cuts_context


@pytest.mark.parametrize(("there", "nodes"), [(2, 2), (3, 3), (4, 4), (5, 4), (6, 3), (8, 4), (16, 3)])
def test_of_nodes_that_are_there_the_best_use_is_made(there: int, nodes: int) -> None:
    assert planned(wishes("H100x8", cluster_nodes=there)).nodes_per_replica == nodes


def test_more_than_the_cluster_has_is_refused_by_the_flag_that_asks() -> None:
    for fixed, field in (({"nodes": 4}, "nodesPerReplica"), ({"tensor_parallel": 32}, "tensorParallel")):
        refusal = plan_wishes(wishes("H100x8", cluster_nodes=2, **fixed))
        assert isinstance(refusal, Refusal)
        assert refusal.field.endswith(field)
        assert "the cluster has 2" in refusal.message
    none = plan_wishes(wishes("H100x8", cluster_nodes=1))
    assert isinstance(none, Refusal)
    assert "2 node(s) of H100x8" in none.remedy


def test_a_layout_that_keeps_the_context_comes_before_a_faster_one_unless_less_is_asked_for() -> None:
    whole, less = planned(wishes("H800x8")), planned(wishes("H800x8", context_length=65536))
    assert (whole.limits.context_length, whole.layout.all_to_all) == (163_840, AllToAll.NONE)
    assert less.layout.all_to_all is AllToAll.DEEPEP
    assert whole.estimate is not None
    assert less.estimate is not None
    assert less.estimate.tokens_per_second > whole.estimate.tokens_per_second
    layout = next(reason for reason in whole.reasons if reason.choice == "layout")
    assert any("context 114688" in other for other in layout.beat), "what a shorter context would allow is named"


def test_over_tcp_on_purpose_a_plan_does_without_deepep() -> None:
    """Two nodes of H20 are planned with DeepEP, which TCP cannot carry: nobody is refused for that."""
    spec = {**resource("H20x8")["spec"], "engine": {"fabric": {"transport": "Tcp"}}}  # type: ignore[dict-item]
    plan = make_plan(R1DeploymentSpec.model_validate(spec))
    assert isinstance(plan, Plan), str(plan)
    assert (plan.nodes_per_replica, plan.needs_rdma, plan.cuts_context) == (2, False, False)


def test_a_context_that_is_cut_is_said_in_the_table_and_in_the_condition(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--hardware", "H20x8", "--nodes", "1"]) == 0
    assert "60,416, cut from 163,840" in capsys.readouterr().out
    settings = Settings("engine:1", "gateway:1", built_in_profiles(), "fabric")
    one = read_subject(resource("H20x8", topology={"nodesPerReplica": 1}), settings)
    assert "cut from 163840 to 60416" in one.valid.message
    assert "spec.limits.contextLength" in one.valid.message
    assert "cut" not in read_subject(resource("H20x8"), settings).valid.message


def test_the_plan_knows_the_smaller_replica_that_would_do() -> None:
    plan = planned(wishes("H20x8"))
    assert plan.smallest is not None
    assert (plan.smallest.nodes, plan.smallest.context_length) == (1, 60_416)
    assert planned(wishes("H100x8")).smallest is None


def test_a_gang_without_nodes_is_told_of_the_smaller_replica_that_would_do() -> None:
    short = (Unplaceable("r1-0-0", "needs 2 nodes, and 1 is free"),)
    for hardware, told in (("H20x8", True), ("H100x8", False)):
        one = replace(observed(view(GangState.GATED), unplaceable=short), plan=planned(wishes(hardware)))
        said = message(derive(R1DeploymentStatus(), one, NOW), "GangsPlaced")
        assert ("spec.topology.nodesPerReplica 1, which holds the model as well (626 tok/s" in said) == told


def test_the_table_says_what_more_and_fewer_nodes_would_bring(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--hardware", "H100x8"]) == 0
    rows = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "refused: tp8 on H100x8 needs weights 79.57 GiB" in rows["On 1 node"]
    for row in (rows["On 3 nodes"], rows["On 4 nodes"]):
        assert all(word in row for word in ("tok/s", "a GPU", "context 163,840", "times per GPU", "DeepEP"))


def test_programs_get_the_same_about_other_node_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--hardware", "H20x8", "--nodes", "2", "-o", "json"]) == 0
    body = json.loads(capsys.readouterr().out)
    one, three, four = body["otherNodeCounts"]
    assert (one["nodes"], three["nodes"], four["nodes"]) == (1, 3, 4)
    assert (one["contextLength"], body["contextLength"], body["contextLengthUncut"]) == (60_416, 163_840, 163_840)
    assert body["expected"]["tokensPerSecond"] / 16 > 7 * one["tokensPerSecondPerGpu"]
    assert main(["plan", "--hardware", "H100x8", "--nodes", "2", "-o", "json"]) == 0
    refused = json.loads(capsys.readouterr().out)["otherNodeCounts"][0]
    assert set(refused["refused"]) == {"field", "message", "remedy"}


SPELLINGS = [
    ("--tensor-parallel 16 --attention-dp 16", "--tp-size 16 --attn-dp-size 16"),
    ("--tensor-parallel 16 --attention-dp 16", "--tp 16 --dp-size 16 --enable-dp-attention"),
    ("--nodes 2 --moe-a2a-backend DeepEP", "--nnodes 2 --moe-a2a-backend deepep"),
    ("--moe-a2a-backend None --expert-parallel 16", "--moe-a2a-backend none --ep-size 16"),
    ("--nodes 4 --redundant-experts 32", "--nodes 4 --ep-num-redundant-experts 32"),
    ("--memory-fraction-percent 83", "--mem-fraction-static 0.83"),
    ("--mtp on --objective Latency", "--speculative-algorithm EAGLE --objective latency"),
    (f"--model {R1}", f"--model-path {R1}"),
]


@pytest.mark.parametrize(("ours", "sglang"), SPELLINGS, ids=lambda flags: flags)
def test_sglangs_own_names_and_values_mean_the_same(ours: str, sglang: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for flags in (ours, sglang):
        assert main(["plan", "--hardware", "H100x8", *flags.split(), "-o", "args"]) == 0, capsys.readouterr().err
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


@pytest.mark.parametrize(
    ("flags", "flag", "reason", "remedy"),
    [
        ("--moe-a2a-backend mooncake", "--moe-a2a-backend", "no form for 'mooncake'", "use none or deepep"),
        ("--kv-cache-dtype fp4_e2m1", "--kv-cache-dtype", "no form for 'fp4_e2m1'", "fp8_e4m3"),
        ("--speculative-algorithm NGRAM", "--speculative-algorithm", "no memory form for 'NGRAM'", "EAGLE"),
        ("--mem-fraction-static 0.851", "--mem-fraction-static", "no fraction that a resource takes", "hundredths"),
        ("--mem-fraction-static nan", "--mem-fraction-static", "no fraction", "hundredths"),
        ("--tp-size 0", "--tp-size", "must be a whole number", "1 to 1024"),
        ("--dp-size 16", "--dp-size", "whole copies", "--attention-dp 16"),
        ("--enable-dp-attention", "--enable-dp-attention", "not said", "--dp-size N"),
        ("--dp-size 8 --enable-dp-attention --attention-dp 16", "--dp-size", "says 16", "leave one of them out"),
        ("--page-size 128", "--page-size", "does not work", "leave it out"),
        ("--pp-size=2", "--pp-size", "no form for", "leave it out"),
        ("--log-level debug", "--log-level", "a plan is not made from it", "spec.engine.args"),
        ("--tensor-paralel 16", "--tensor-paralel", "is not known", "did you mean --tensor-parallel"),
        ("deepep", "'deepep'", "belongs to no flag", "begin with one"),
        ("--cluster-nodes 4 --disaggregated", "--cluster-nodes", "one kind of replica", "leave it out"),
    ],
)
def test_what_is_not_known_is_refused_with_flag_reason_and_remedy(
    flags: str, flag: str, reason: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--hardware", "H100x8", *flags.split()]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("r1 plan: ")
    assert shown.err.count("\n") == 1
    assert all(word in shown.err for word in (flag, reason, remedy)), shown.err
