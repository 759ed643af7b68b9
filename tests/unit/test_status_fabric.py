"""The condition FabricReady, from the plan to the engine and from the engine's words to the user's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1_engine import fabric_verdict
from r1_engine.config import EngineConfig, FabricPlan
from r1_operator.api.reasons import Reason
from r1_operator.api.types import Condition, R1DeploymentSpec, R1DeploymentStatus
from r1_operator.lifecycle.gangs import Failure, GangState
from r1_operator.manifests.engine_config import engine_config
from r1_operator.planning import make_plan
from r1_operator.planning.plan import Plan, Refusal
from r1_operator.status.derive import derive
from r1_operator.status.fabric import FABRIC_FAULTS, fabric_ready
from r1_operator.status.observation import FabricReport
from r1_operator.status.transitions import events

from tests.unit.status_rounds import NOW, condition, message, observed, view
from tests.unit.test_core_manifests import context

EMPTY = R1DeploymentStatus()
NONE = FabricReport(False, "NoRdmaDevices", 'node 1 (gpu-8): no RDMA device: request … e.g. rdma/ib: "1"')
GOOD = FabricReport(True, "RdmaFound", "8 InfiniBand port(s), 3200 Gb/s a node, with GPUDirect")
UNSURE = FabricReport(None, "FabricUnknown", "node(s) 1 have not reported")


def plan_of(**spec: object) -> Plan | Refusal:
    weights = {"name": "deepseek-ai/DeepSeek-R1", "weights": {"hostPath": {"path": "/w"}}}
    return make_plan(R1DeploymentSpec.model_validate({"model": weights, "hardware": "H100x8", **spec}))


TWO_NODES = plan_of()


def test_a_gang_that_crawls_is_told_and_goes_on() -> None:
    before = derive(EMPTY, observed(view(GangState.STARTING), plan=TWO_NODES), NOW)
    assert condition(before, "FabricReady") == ("Unknown", "FabricUnknown")
    status = derive(before, observed(view(GangState.READY), plan=TWO_NODES, fabrics={"r1-0-0": NONE}), NOW)
    assert condition(status, "FabricReady") == ("False", "NoRdmaDevices")
    assert message(status, "FabricReady") == f"r1-0-0: {NONE.message}"
    assert condition(status, "Ready") == ("True", "Ready")
    assert NONE.message in message(status, "Ready"), "where people look first"
    assert condition(status, "Degraded") == ("True", "NoRdmaDevices")
    assert [event.reason for event in events(before, status)].count("FabricNotReady") == 1


def test_a_gang_that_was_refused_for_its_fabric_says_so() -> None:
    failure = Failure("MemlockTooLow", "pod r1-0-0-1 on node gpu-8: only 64 KiB …", NOW, configuration=True)
    status = derive(EMPTY, observed(view(GangState.FAILED, failure), plan=TWO_NODES), NOW)
    assert condition(status, "FabricReady") == ("False", "MemlockTooLow")
    assert condition(status, "Ready") == ("False", "MemlockTooLow")
    assert condition(status, "Progressing") == ("False", "MemlockTooLow"), "no restart helps"
    assert condition(status, "WeightsReady")[0] != "False"
    died = Failure("PartDied", "a rank died", NOW)
    status = derive(EMPTY, observed(view(GangState.FAILED, died), plan=TWO_NODES), NOW)
    assert condition(status, "FabricReady")[0] == "Unknown"


def test_unknown_is_neither_yes_nor_no() -> None:
    two = [view(GangState.READY), view(GangState.STARTING, name="r1-1-0")]

    def told(**fabrics: FabricReport) -> tuple[str, str]:
        reports = {name.replace("_", "-"): report for name, report in fabrics.items()}
        return condition(derive(EMPTY, observed(*two, plan=TWO_NODES, fabrics=reports), NOW), "FabricReady")

    assert told(r1_0_0=GOOD) == ("True", "RdmaFound"), "one more that starts casts no doubt"
    assert told(r1_0_0=GOOD, r1_1_0=UNSURE) == ("True", "RdmaFound")
    assert told(r1_0_0=UNSURE) == ("Unknown", "FabricUnknown")
    assert told(r1_0_0=GOOD, r1_1_0=NONE) == ("False", "NoRdmaDevices")
    assert told(r1_1_0=GOOD) == ("Unknown", "FabricUnknown"), "an engine that does not tell"
    assert told(r1_0_0=FabricReport(True, "TcpOnPurpose", "TCP")) == ("True", "TcpOnPurpose")
    assert told(r1_0_0=FabricReport(False, "TooManyCooks", "…")) == ("False", "FabricNotReady")


def test_an_operator_that_has_heard_nothing_yet_says_what_was_known() -> None:
    serving = observed(view(GangState.READY), plan=TWO_NODES, fabrics={"r1-0-0": NONE})
    known = derive(EMPTY, serving, NOW)
    restarted = derive(known, observed(view(GangState.READY), plan=TWO_NODES), NOW + 60)
    assert restarted.condition("FabricReady") == known.condition("FabricReady")
    failed_round = derive(known, observed(decision=None, plan=TWO_NODES), NOW + 60)
    assert failed_round.condition("FabricReady") == known.condition("FabricReady")
    died = Failure("EngineDied", "node 1: ibv_reg_mr failed", NOW)
    failed = derive(known, observed(view(GangState.FAILED, died), plan=TWO_NODES), NOW + 60)
    assert failed.condition("FabricReady") == known.condition("FabricReady"), "the remedy outlasts what follows from it"
    new = derive(known, observed(view(GangState.STARTING, name="r1-0-1"), plan=TWO_NODES), NOW + 60)
    assert condition(new, "FabricReady")[0] == "Unknown", "another gang, perhaps with what was missing"


def test_one_node_and_processor_cores_have_no_fabric() -> None:
    one = plan_of(hardware="H200x8", topology={"nodesPerReplica": 1})
    assert isinstance(one, Plan), one
    for plan in (one, None):
        assert derive(EMPTY, observed(view(GangState.READY), plan=plan), NOW).condition("FabricReady") is None


REPORTS = st.builds(
    FabricReport, st.sampled_from([True, False, None]), st.sampled_from(["RdmaFound", "New"]), st.just("m")
)


@given(
    states=st.lists(
        st.sampled_from([GangState.READY, GangState.UNREADY, GangState.STARTING, GangState.GATED]), max_size=4
    ),
    reports=st.lists(st.none() | REPORTS, min_size=4, max_size=4),
    before=st.none()
    | st.builds(
        Condition,
        type=st.just("FabricReady"),
        status=st.sampled_from(["True", "False", "Unknown"]),
        reason=st.sampled_from(["RdmaFound", "OfAnotherVersion"]),
        last_transition_time=st.just("2026-11-26T12:00:00Z"),
    ),
)
def test_nothing_bad_is_hidden_and_nothing_good_invented(
    states: list[GangState], reports: list[FabricReport | None], before: Condition | None
) -> None:
    names = [f"r1-{index}-0" for index in range(len(states))]
    said = {name: report for name, report in zip(names, reports, strict=False) if report is not None}
    views = [view(state, name=name) for state, name in zip(states, names, strict=True)]
    finding = fabric_ready(before, observed(*views, plan=TWO_NODES, fabrics=said))
    assert finding is not None
    if any(report.ready is False for report in said.values()):
        assert finding.status == "False"
    elif finding.status == "True":
        assert any(report.ready for report in said.values()) or (before is not None and before.status == "True")


# ── from the plan to the engine ──────────────────────────────────────────────────────────────────────────────────────


def told(**spec: object) -> FabricPlan | None:
    document = engine_config(context(**spec), 0, 0)
    return EngineConfig.model_validate(json.loads(json.dumps(document))).fabric


def test_the_engine_is_told_what_the_plan_counts_on() -> None:
    assert told() == FabricPlan(gbits_per_node=3200)
    assert told(topology={"moeA2aBackend": "DeepEP"}) == FabricPlan(gbits_per_node=3200, needs_rdma=True)
    assert told(engine={"fabric": {"transport": "Tcp"}}) == FabricPlan(transport="Tcp", gbits_per_node=3200)
    assert told(hardware="H200x8", topology={"nodesPerReplica": 1}) is None


def test_a_plan_that_needs_rdma_is_refused_over_tcp() -> None:
    tcp = {"fabric": {"transport": "Tcp"}}
    refused = plan_of(engine=tcp, topology={"moeA2aBackend": "DeepEP"})
    assert isinstance(refused, Refusal)
    assert refused.field == "spec.engine.fabric.transport"
    assert "moeA2aBackend None" in refused.remedy
    assert isinstance(plan_of(engine=tcp, topology={"moeA2aBackend": "None"}), Plan)
    one = plan_of(hardware="B200x8", engine=tcp, topology={"nodesPerReplica": 1})
    assert isinstance(one, Plan), "inside a node it is NVLink"


def test_every_word_of_the_engine_is_a_reason_of_the_operator() -> None:
    source = Path(fabric_verdict.__file__).read_text()
    faults = set(re.findall(r'Verdict\(False, "(\w+)"', source))
    assert faults == {str(reason) for reason in FABRIC_FAULTS - {Reason.FABRIC_NOT_READY}}
    others = set(re.findall(r'Verdict\((?:True|None), "(\w+)"', source))
    assert others == {Reason.RDMA_FOUND, Reason.TCP_ON_PURPOSE, Reason.FABRIC_UNKNOWN}


@pytest.mark.parametrize("transport", ["Infiniband", "tcp", ""])
def test_another_transport_is_refused(transport: str) -> None:
    with pytest.raises(ValueError, match="transport"):
        plan_of(engine={"fabric": {"transport": transport}})
