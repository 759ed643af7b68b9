"""The network between the nodes: which ports are told to NCCL and NVSHMEM, and what is said before the load."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1_engine import head, launch, node
from r1_engine.config import FabricPlan
from r1_engine.fabric import Fabric, Gid, Port, read_fabric
from r1_engine.fabric_ports import choose, defaults
from r1_engine.fabric_verdict import GangFabric, NodeFabric, Verdict, heard, judge
from r1_engine.nccl import KEPT_LINES, Heard
from r1_engine.outcome import Exit
from r1_engine.stages import Member, Stage

from tests.unit import fabric_trees as trees
from tests.unit.fabric_trees import Hca, down, roce, write_tree
from tests.unit.test_engine_launch import settings

EIGHT = [Hca(f"mlx5_{i}") for i in (0, 3, 4, 5, 6, 9, 10, 11)]
EIGHT_NAMES = "mlx5_0:1,mlx5_3:1,mlx5_4:1,mlx5_5:1,mlx5_6:1,mlx5_9:1,mlx5_10:1,mlx5_11:1"
ROCE = [roce(f"mlx5_{i}", f"10.9.{i}.1") for i in range(8)]
STORAGE = [roce("mlx5_8", "10.50.0.1", rate="200 Gb/sec (4X HDR)"), roce("mlx5_12", None, rate="25 Gb/sec (1X EDR)")]
ADDRESSES = ("10.0.0.7", "10.50.0.1", *(f"10.9.{i}.1" for i in range(8)))
PLAN = FabricPlan(gbits_per_node=3200)


def tree(root: Path, hcas: Iterable[Hca] = (), addresses: Iterable[str] = ADDRESSES, **changes: Any) -> Fabric:
    return read_fabric(write_tree(root, hcas, **changes), tuple(addresses))


# ── what NCCL and NVSHMEM are told ───────────────────────────────────────────────────────────────────────────────────


def test_infiniband_ports_are_named_and_storage_is_not(tmp_path: Path) -> None:
    fabric = tree(tmp_path, [*EIGHT, roce("mlx5_1", rate="100 Gb/sec (4X EDR)"), down("mlx5_2")])
    told = defaults(choose(fabric), {}, interface="eth0")
    assert told["NCCL_IB_HCA"] == f"={EIGHT_NAMES}"
    assert told["NVSHMEM_HCA_LIST"] == EIGHT_NAMES
    assert told["NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME"] == "eth0"
    assert (told["NCCL_DEBUG"], told["NCCL_DEBUG_SUBSYS"]) == ("INFO", "INIT,NET")
    assert not {"NCCL_IB_GID_INDEX", "NVSHMEM_IB_GID_INDEX"} & set(told), "InfiniBand has its own"


def test_roce_ports_share_the_commonest_index_of_this_pods_addresses(tmp_path: Path) -> None:
    odd = roce("mlx5_7", "10.9.7.1", index=5)
    choice = choose(tree(tmp_path, [*ROCE[:7], odd, *STORAGE]))
    told = defaults(choice, {})
    assert told["NCCL_IB_HCA"] == "=" + ",".join(f"mlx5_{i}:1" for i in range(7))
    assert (told["NCCL_IB_GID_INDEX"], told["NVSHMEM_IB_GID_INDEX"]) == ("3", "3")
    assert [port.device for port in choice.aside] == ["mlx5_7", "mlx5_8"]
    assert [port.device for port in choice.unreached] == ["mlx5_12"], "an address of nobody here"


def test_storage_of_the_same_rate_hangs_on_a_root_without_gpus(tmp_path: Path) -> None:
    storage = [Hca("mlx5_1", root="pci0000:c7"), Hca("mlx5_2", root="pci0000:c7")]
    assert [p.device for p in choose(tree(tmp_path / "a", [*EIGHT, *storage])).ports] == [p.name for p in EIGHT]
    few = choose(tree(tmp_path / "b", [EIGHT[0], *storage]))
    assert len(few.ports) == 3, "with fewer ports than GPUs beside them, all are used"


def test_a_pod_uses_what_it_was_given_whatever_sys_shows(tmp_path: Path) -> None:
    hidden = [replace(hca, given=hca.name in ("mlx5_4", "mlx5_6")) for hca in EIGHT]
    assert defaults(choose(tree(tmp_path, hidden)), {})["NCCL_IB_HCA"] == "=mlx5_4:1,mlx5_6:1"


def test_virtual_functions_are_used_where_there_is_nothing_else(tmp_path: Path) -> None:
    virtual = [Hca(f"mlx5_{i}", virtual=True) for i in range(20, 24)]
    assert len(choose(tree(tmp_path / "a", virtual)).ports) == 4
    assert [p.device for p in choose(tree(tmp_path / "b", [*virtual, Hca("mlx5_0")])).ports] == ["mlx5_0"]


def test_efa_is_a_fabric_and_iwarp_is_none(tmp_path: Path) -> None:
    efa = [Hca(f"rdmap{i}s0", link="Unspecified", node_type="7: unspecified", rate="100 Gb/sec") for i in range(32)]
    fabric = tree(tmp_path / "a", efa, modules=("efa_nv_peermem",))
    assert judge(fabric, PLAN).verdict.ready
    assert not {"NCCL_IB_HCA", "NVSHMEM_HCA_LIST"} & set(defaults(choose(fabric), {})), "its plugin finds them"
    assert judge(tree(tmp_path / "b", [roce("iw0", node_type="4: RNIC")]), PLAN).verdict.reason == "NoRdmaDevices"


def test_tcp_on_purpose_keeps_nccl_from_rdma(tmp_path: Path) -> None:
    told = defaults(choose(tree(tmp_path, EIGHT)), {}, tcp=True)
    assert told["NCCL_IB_DISABLE"] == "1"
    assert "NCCL_IB_HCA" not in told


PORTS = st.builds(
    Port,
    device=st.sampled_from([f"mlx5_{i}" for i in range(12)]),
    number=st.integers(1, 2),
    state=st.sampled_from(["ACTIVE", "DOWN", "INIT", "ARMED", ""]),
    physical=st.sampled_from(["LinkUp", "Polling", "Disabled", ""]),
    link=st.sampled_from(["InfiniBand", "Ethernet", "Unspecified", ""]),
    gbits=st.sampled_from([0.0, 25.0, 200.0, 400.0]),
    gids=st.lists(
        st.builds(
            Gid,
            st.integers(0, 5),
            st.sampled_from(["RoCE v2", "IB/RoCE v1", ""]),
            st.sampled_from(["fe80::1", "10.9.0.1", "10.9.0.2", "2001:db8::1"]),
        ),
        max_size=4,
        unique_by=lambda gid: gid.index,
    ).map(tuple),
    opened=st.sampled_from([True, False, None]),
    adapter=st.booleans(),
    virtual=st.booleans(),
    near_gpu=st.booleans(),
)
FABRICS = st.builds(
    Fabric,
    ports=st.lists(PORTS, max_size=12, unique_by=lambda port: port.name).map(tuple),
    gpus=st.integers(0, 8),
    addresses=st.frozensets(st.sampled_from(["fe80::1", "10.9.0.1", "2001:db8::1"])),
)
OURS = [
    *("NCCL_DEBUG", "NCCL_DEBUG_SUBSYS", "NCCL_IB_HCA", "NCCL_IB_GID_INDEX", "NCCL_IB_DISABLE", "NCCL_SOCKET_IFNAME"),
    *("NVSHMEM_HCA_LIST", "NVSHMEM_HCA_PE_MAPPING", "NVSHMEM_IB_GID_INDEX", "NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME"),
    "GLOO_SOCKET_IFNAME",
]


@given(fabric=FABRICS)
def test_no_port_is_chosen_that_cannot_be_used(fabric: Fabric) -> None:
    choice = choose(fabric)
    for port in choice.ports:
        assert port.up
        assert port.opened is not False
        assert port.adapter
        if port.link == "Ethernet":
            assert any(
                g.index == choice.gid and g.kind == "RoCE v2" and g.address in fabric.addresses for g in port.gids
            )
    assert len({(port.link, port.gbits) for port in choice.ports}) <= 1
    assert bool(choice.ports) == any(
        p.up and p.opened is not False and p.adapter and p not in choice.unreached
        for p in fabric.ports
        if not p.virtual or all(q.virtual or q.opened is False or not q.adapter for q in fabric.ports)
    )


@given(
    fabric=FABRICS,
    users=st.dictionaries(st.sampled_from(OURS), st.just("the user's")),
    given_in=st.sampled_from(["pod", "engine.json"]),
    tcp=st.booleans(),
)
def test_the_users_variables_always_win(fabric: Fabric, users: dict[str, str], given_in: str, tcp: bool) -> None:
    plan = {"transport": "Tcp" if tcp else None}
    env, base = (users, {}) if given_in == "engine.json" else ({}, users)
    told = launch.environment(base, settings(env=env, fabric=plan), (0,), "eth0", fabric)
    assert {name: told[name] for name in users} == users
    if "NCCL_DEBUG" in users and "NCCL_DEBUG_SUBSYS" not in users:
        assert "NCCL_DEBUG_SUBSYS" not in told, "what they asked NCCL to say is not cut short"
    if "NCCL_IB_HCA" in users:
        assert "NCCL_IB_GID_INDEX" in users or "NCCL_IB_GID_INDEX" not in told
    one = launch.environment(base, settings(env=env, nodes=1), (0,), "eth0", fabric)
    assert not {name for name in one if name.startswith(("NCCL_IB", "NVSHMEM", "NCCL_DEBUG"))} - set(users)


# ── what is said before the load ─────────────────────────────────────────────────────────────────────────────────────

LOW = {"memlock": "65536", "capabilities": trees.NO_IPC_LOCK}
NO_DIRECT = {"modules": (), "driver": trees.CLOSED}


@pytest.mark.parametrize(
    ("hcas", "changes", "ready", "reason", "words"),
    [
        (EIGHT, {}, True, "RdmaFound", "8 InfiniBand port(s), 3200 Gb/s a node, with GPUDirect"),
        ([*ROCE, *STORAGE], {}, True, "RdmaFound", "8 RoCE port(s), 3200 Gb/s"),
        ([], {}, False, "NoRdmaDevices", "no RDMA device (/sys/class/infiniband) is on this node"),
        ([], {"infiniband": False}, False, "NoRdmaDevices", "request the node's RDMA resource"),
        ([replace(h, given=False) for h in EIGHT], {}, False, "NoRdmaDevices", 'limits, e.g. rdma/ib: "1"'),
        ([down(h.name) for h in EIGHT], {}, False, "PortsDown", "mlx5_0:1 DOWN/Disabled"),
        ([*EIGHT[:7], down("mlx5_11")], {}, False, "PortsDown", "leaves 2800 Gb/s of the 3200"),
        ([replace(EIGHT[0], state="2: INIT")], {}, False, "PortsDown", "subnet manager"),
        (ROCE, {"addresses": ("10.0.0.7",)}, False, "NoRoceAddress", "spec.engine.podTemplate.spec.hostNetwork"),
        (EIGHT[:4], {}, False, "RateBelowProfile", "4 port(s) (mlx5_0:1, mlx5_3:1, mlx5_4:1, mlx5_5:1) have 1600"),
        ([*EIGHT[:2], *(replace(h, given=False) for h in EIGHT[2:])], {}, False, "RateBelowProfile", "2 of the node's"),
        (EIGHT, LOW, False, "MemlockTooLow", "only 64 KiB"),
        (EIGHT, {**LOW, "capabilities": trees.IPC_LOCK}, True, "RdmaFound", ""),
        (EIGHT, {**LOW, "memlock": "unlimited"}, True, "RdmaFound", ""),
        (EIGHT, NO_DIRECT, False, "GpuDirectMissing", "load nvidia_peermem on the node"),
        (EIGHT, {**NO_DIRECT, "driver": trees.OPEN}, True, "RdmaFound", "with GPUDirect"),
        (EIGHT, {"modules": (), "driver": trees.OPEN, "kernel": "5.4.0"}, False, "GpuDirectMissing", ""),
        (EIGHT, {"modules": (), "driver": None}, True, "RdmaFound", "whether with GPUDirect is not known"),
        (EIGHT, {"params": trees.NO_IBGDA}, True, "RdmaFound", ""),
    ],
)  # fmt: skip
def test_what_a_node_lacks_is_named_with_the_remedy(
    tmp_path: Path, hcas: list[Hca], changes: dict[str, Any], ready: bool, reason: str, words: str
) -> None:
    verdict = judge(tree(tmp_path, hcas, **changes), PLAN).verdict
    assert (verdict.ready, verdict.reason) == (ready, reason), verdict.message
    assert words in verdict.message
    assert not verdict.fatal, "it would crawl, and comes up"


@pytest.mark.parametrize(
    ("hcas", "changes", "fatal", "reason"),
    [
        ([], {}, True, "NoRdmaDevices"),
        ([down("mlx5_0")], {}, True, "PortsDown"),
        (ROCE, {"addresses": ("10.0.0.7",)}, True, "NoRoceAddress"),
        (EIGHT, LOW, True, "MemlockTooLow"),
        (EIGHT, NO_DIRECT, True, "GpuDirectMissing"),
        (EIGHT, {"params": trees.NO_IBGDA}, False, "GpuInitiatedMissing"),
        (EIGHT, {"params": trees.NO_IBGDA, "modules": (trees.PEERMEM, trees.GDRDRV)}, False, "RdmaFound"),
        (EIGHT, {"params": None}, False, "RdmaFound"),
        (EIGHT[:2], {}, False, "RateBelowProfile"),
    ],
)
def test_a_plan_that_cannot_run_without_rdma_does_not_start(
    tmp_path: Path, hcas: list[Hca], changes: dict[str, Any], fatal: bool, reason: str
) -> None:
    needs = FabricPlan(gbits_per_node=3200, needs_rdma=True)
    verdict = judge(tree(tmp_path, hcas, **changes), needs).verdict
    assert (verdict.fatal, verdict.reason) == (fatal, reason), verdict.message


def test_what_the_user_says_of_the_transport_is_kept(tmp_path: Path) -> None:
    bare, full = tree(tmp_path / "a"), tree(tmp_path / "b", EIGHT)
    tcp = FabricPlan(transport="Tcp", gbits_per_node=3200)
    assert [judge(f, tcp).verdict.reason for f in (bare, full)] == ["TcpOnPurpose"] * 2
    assert judge(bare, tcp).verdict.ready
    refused = judge(full, FabricPlan(transport="Tcp", needs_rdma=True)).verdict
    assert (refused.fatal, refused.reason) == (True, "PlanNeedsRdma")
    wanted = judge(bare, FabricPlan(transport="Rdma")).verdict
    assert (wanted.fatal, wanted.reason) == (True, "NoRdmaDevices")
    assert judge(bare, FabricPlan()).verdict.reason == "TcpOnPurpose", "a profile without a fabric expects none"


def test_what_cannot_be_read_is_unknown_and_starts(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    verdict = judge(read_fabric(tmp_path / "empty", ()), FabricPlan(gbits_per_node=3200, needs_rdma=True)).verdict
    assert (verdict.ready, verdict.reason, verdict.fatal) == (None, "FabricUnknown", False)


GOOD = NodeFabric(Verdict(True, "RdmaFound", "8 InfiniBand port(s)"), "InfiniBand", 8, 3200.0, True)
BAD = NodeFabric(Verdict(False, "NoRdmaDevices", "no RDMA device"))


def joined(*nodes: NodeFabric, size: int = 2) -> tuple[bool | None, str, str]:
    verdict = GangFabric(
        {at: (f"gpu-{at}", NodeFabric.from_json(n.to_json())) for at, n in enumerate(nodes)}, size
    ).verdict
    return verdict.ready, verdict.reason, verdict.message


def test_a_gang_is_as_good_as_its_worst_node() -> None:
    assert joined(GOOD, GOOD)[:2] == (True, "RdmaFound")
    assert joined(GOOD)[:2] == (None, "FabricUnknown")
    assert joined(BAD, size=3)[:2] == (False, "NoRdmaDevices"), "known before the others have spoken"
    ready, reason, message = joined(GOOD, BAD)
    assert (ready, reason) == (False, "NoRdmaDevices")
    assert message.startswith("node 1 (gpu-1): ")
    ready, reason, message = joined(GOOD, replace(GOOD, ports=4, gbits=1600.0))
    assert (ready, reason) == (False, "NotUniform")
    assert "node 1 (gpu-1) has 4 InfiniBand port(s), 1600 Gb/s" in message
    unknown = replace(GOOD, verdict=Verdict(None, "FabricUnknown", "cannot be read"))
    assert joined(GOOD, unknown)[:2] == (None, "FabricUnknown")


# ── NCCL's own words ─────────────────────────────────────────────────────────────────────────────────────────────────

SAYS = "gpu-7:152:386 [0] NCCL INFO "
IB = f"{SAYS}Using network IB"
DIRECT = f"{SAYS}Channel 00/0 : 7[7] -> 8[0] [send] via NET/IB/0(1)/GDRDMA"
PLAIN = f"{SAYS}Channel 00/0 : 7[7] -> 8[0] [send] via NET/IB/0"


def hear(*lines: str) -> Heard:
    known = Heard()
    for line in lines:
        known, _ = known.after(line)
    return known


def test_nccl_tells_which_network_it_uses() -> None:
    assert hear("Load weight begin").network is None
    assert hear(IB, f"{SAYS}Using network IB").network == "IB"
    assert hear(f"{SAYS}Using network AWS Libfabric").network == "AWS Libfabric"
    assert hear(f"{SAYS}NET/IB : No device found.", f"{SAYS}Using network Socket", IB).network == "Socket"
    assert hear(IB, PLAIN, DIRECT).gpu_direct is True
    assert hear(IB, PLAIN).gpu_direct is None, "one GPU may be far from its NIC"
    assert hear(IB, *[PLAIN] * 8).gpu_direct is False
    assert hear(IB, *[PLAIN] * 8, DIRECT).gpu_direct is True
    assert hear(f"{SAYS}Channel 00/0 : 0[0] -> 1[1] [send] via NET/Socket/0").gpu_direct is None


def test_a_gang_with_rdma_whose_nccl_uses_sockets_is_told() -> None:
    sockets = heard(replace(GOOD, nccl=Heard("Socket")))
    assert (sockets.ready, sockets.reason) == (False, "NcclUsesSockets")
    assert "libibverbs" in sockets.message
    assert joined(GOOD, replace(GOOD, nccl=Heard("Socket")))[:2] == (False, "NcclUsesSockets")
    assert heard(replace(GOOD, nccl=Heard("IB", gpu_direct=False))).reason == "GpuDirectMissing"
    assert heard(replace(GOOD, nccl=Heard("IB", True))).message.endswith("; NCCL: IB")
    tcp = NodeFabric(Verdict(True, "TcpOnPurpose", "TCP"), nccl=Heard("Socket"))
    assert heard(tcp).ready


def test_nccls_lines_are_bounded_in_the_log() -> None:
    known, kept = Heard(), 0
    for number in range(10_000):
        known, keep = known.after(f"{SAYS}Channel {number}/0 : 0[0] -> 1[1] via P2P/CUMEM")
        kept += keep
    assert kept == KEPT_LINES
    assert known.after("an error of SGLang's")[1]
    assert known.after(IB)[1], "news is kept"


# ── the agent ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("needs", [False, True])
async def test_an_agent_without_rdma_tells_it_and_ends_only_where_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs: bool
) -> None:
    monkeypatch.setattr(node, "read_fabric", lambda: tree(tmp_path / "host"))
    ending = node.Ending()
    told = settings(fabric={"gbitsPerNode": 3200, "needsRdma": needs}, modelPath=str(tmp_path / "nowhere"))
    agent = node.Node(told, ending, lambda: None)
    assert not await agent.check()
    cause = await ending.wait()
    assert cause.code is Exit.CONFIGURATION
    assert cause.reason == ("NoRdmaDevices" if needs else "ModelPathMissing"), "or the next check is what ends it"
    assert agent.fabric is not None
    assert agent.fabric.verdict.reason == "NoRdmaDevices"
    agent._on_report({"log": f"{SAYS}Using network Socket"})
    assert agent.fabric.to_json()["ncclNetwork"] == "Socket"


async def test_node_0_joins_what_its_members_report(tmp_path: Path) -> None:
    told = settings(fabric={"gbitsPerNode": 3200})
    run_dir = told.pod.model_copy(update={"run_dir": tmp_path})
    role = head.HeadRole(told.model_copy(update={"pod": run_dir}), node.Ending())
    assert role.fabric() is None, "not looked at yet"
    role.node.fabric = GOOD
    role._gang = role._gang.heard(Member(1, "gpu-8", Stage.RAY, "Its agent has joined."), 0.0)
    alone = role.fabric()
    assert alone is not None
    assert (alone["ready"], alone["reason"]) == (None, "FabricUnknown")
    report = {"stage": "Ray", "message": "Starting Ray."}
    role._on_member(1, {"report": {**report, "fabric": None}})
    role._on_member(1, {"report": {**report, "fabric": BAD.to_json()}})
    told_all = role.fabric()
    assert told_all is not None
    assert (told_all["ready"], told_all["reason"]) == (False, "NoRdmaDevices")
    assert told_all["message"].startswith("node 1 (gpu-8): ")
    assert [(each["index"], each["ports"]) for each in told_all["nodes"]] == [(0, 8), (1, 0)]
