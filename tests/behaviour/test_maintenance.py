"""Nodes that are drained, and nodes that are bad: on real evictions, with users who never pause."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.behaviour.traffic import AT_ONCE, traffic
from tests.behaviour.world import NODES, PATIENCE_SECONDS, Deployment, World, wait_for
from tests.cluster.cluster import ClusterError

pytestmark = [pytest.mark.cluster, pytest.mark.alone]

Deploy = Callable[..., Deployment]

ONE_NODE = {"nodesPerReplica": 1}


def drain(world: World, *nodes: str) -> str:
    """`kubectl drain`, as an administrator types it; → what it printed."""
    flags = ["--ignore-daemonsets", "--delete-emptydir-data", "--force", f"--timeout={PATIENCE_SECONDS:.0f}s"]
    return world.cluster.kubectl("drain", *nodes, *flags)


def all_nodes() -> list[str]:
    return [f"n{number}" for number in range(1, NODES + 1)]


def test_drained_nodes_are_left_for_others_first_two_at_once(world: World, deploy: Deploy) -> None:
    """L17: two `kubectl drain`s evicted both replicas."""
    r1 = deploy(env=AT_ONCE, topology=ONE_NODE, replicas=3)
    r1.await_ready("r1-0-0", "r1-1-0", "r1-2-0")
    first, second = sorted(node for node in r1.nodes().values() if node != "n1")[:2]  # the gateways are on n1
    try:
        with traffic(r1, pause=0.02) as answers, ThreadPoolExecutor(2) as pool:
            fewest = [3]
            done = [pool.submit(drain, world, node) for node in (first, second)]

            def over() -> bool:
                fewest.append(sum(stage == "Ready" for stage in r1.gangs().values()))
                return all(each.done() for each in done)

            wait_for("both drains end", over, seconds=2 * PATIENCE_SECONDS)
            for each in done:
                each.result()
            assert not {first, second} & set(r1.nodes().values())
            wait_for("three serve", lambda: list(r1.gangs().values()), until=lambda seen: seen == ["Ready"] * 3)
        assert answers.lost == []
        assert min(fewest) == 3, "replacement first"
    finally:
        world.cluster.kubectl("uncordon", first, second)


def test_without_spare_nodes_one_of_several_is_let_go_and_the_last_is_kept(world: World, deploy: Deploy) -> None:
    r1 = deploy(env=AT_ONCE, topology=ONE_NODE, replicas=2)
    r1.await_ready("r1-0-0", "r1-1-0")
    used = set(r1.nodes().values())
    others = [node for node in all_nodes() if node not in used]
    second = min(used - {"n1"})  # the gateways are there
    (last,) = used - {second}
    try:
        world.cluster.kubectl("cordon", *others)
        with traffic(r1, pause=0.02) as answers:
            drain(world, second)
            wait_for("one serves", r1.routed, until=lambda routed: len(routed) == 1)
            # The other one is the last that serves: an eviction is refused, and why is told.
            with pytest.raises(ClusterError, match="Cannot evict pod"):
                world.cluster.kubectl(
                    "drain",
                    last,
                    "--ignore-daemonsets",
                    "--delete-emptydir-data",
                    "--timeout=8s",
                    "--pod-selector=app.kubernetes.io/instance=r1,app.kubernetes.io/component=engine",
                )
            assert len(r1.routed()) == 1
            world.cluster.kubectl("uncordon", *all_nodes())
            wait_for("two serve", lambda: list(r1.gangs().values()), until=lambda seen: seen == ["Ready"] * 2)
        assert answers.lost == []
    finally:
        world.cluster.kubectl("uncordon", *all_nodes())


def test_a_bad_node_is_avoided_and_can_be_cleared(deploy: Deploy) -> None:
    """N-11: the same node was taken again at each attempt."""
    r1 = deploy(topology=ONE_NODE)
    r1.await_ready("r1-0-0")
    (bad,) = r1.nodes().values()
    r1.fault("r1-0-0-0", "exit", code=70, reason="GpuUnhealthy", message="GPU 3: Xid 79, fallen off the bus (injected)")
    r1.await_ready("r1-0-1")
    assert bad not in r1.nodes().values()
    listed = wait_for("it is listed", lambda: r1.r1("nodes"), until=lambda text: "GpuUnhealthy" in text)
    (line,) = [line for line in listed.splitlines() if line.startswith(f"{bad} ")]
    assert "Xid 79" in line
    assert "cleared" in r1.r1("nodes", "clear", bad)

    def is_taken_again() -> bool:
        """The operator looks every few seconds whether anything was cleared."""
        r1.kubectl("delete", "r1d", "r1", "--wait=true")
        wait_for("its pods are gone", r1.pods, until=lambda pods: pods == [])
        r1.apply(topology=ONE_NODE)
        r1.await_condition("Ready", "True")
        return bad in r1.nodes().values()

    wait_for("it is used like any other", is_taken_again)
