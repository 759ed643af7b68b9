"""What starts cost: each once, by stage, and how long the next one is reckoned to take."""

from __future__ import annotations

from r1_operator.controller.starts import Starts, stages_of
from r1_operator.lifecycle.gangs import Gang
from r1_operator.lifecycle.pods import gangs_of
from r1_simulate.cluster import SimulatedCluster, spec_of

TIMINGS = {"ray": 5.0, "weights": 300.0, "warmUp": 20.0}


def gang(*, attempt: int = 0, running: bool = True, waited: float = 40.0, pulled: float = 60.0) -> Gang:
    """One gang of two pods as the kubelets tell of it."""
    cluster = SimulatedCluster(spec_of(nodes=2))
    cluster.settle(4)
    pods = list(cluster.machines.pods.values())
    for number, pod in enumerate(pods):
        meta, status = pod["metadata"], pod["status"]
        meta["name"] = meta["name"].replace("r1-0-0", f"r1-0-{attempt}")
        meta["labels"] = {k: f"r1-0-{attempt}" if v == "r1-0-0" else v for k, v in meta["labels"].items()}
        meta["creationTimestamp"] = "2026-11-27T10:00:00Z"
        at = f"2026-11-27T10:00:{waited + number:02.0f}Z"
        status["conditions"] = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at}]
        minute, second = divmod(waited + 1 + pulled, 60)
        state = {"running": {"startedAt": f"2026-11-27T10:{minute:02.0f}:{second:02.0f}Z"}} if running else {}
        status["containerStatuses"] = [{"name": "engine", "state": state, "ready": True}]
    (found,) = gangs_of(pods)
    return found


def test_stages_begin_with_the_pods_and_go_on_with_the_engine() -> None:
    assert stages_of(gang(), TIMINGS) == {
        "Placement": 41.0,
        "Containers": 60.0,
        "Ray": 5.0,
        "Weights": 300.0,
        "WarmUp": 20.0,
    }
    assert stages_of(gang(running=False), TIMINGS) == {"Ray": 5.0, "Weights": 300.0, "WarmUp": 20.0}


def test_each_start_counts_once_and_waiting_for_nodes_is_none_of_it() -> None:
    starts = Starts()
    assert (starts.seconds, starts.last) == (None, {})
    for _ in range(3):
        starts.add(gang(), TIMINGS)
    assert starts.seconds == 385.0
    assert starts.last["Weights"] == 300.0


def test_of_the_last_five_the_longest_but_for_one_is_reckoned_with() -> None:
    starts = Starts()
    for attempt, weights in enumerate((900.0, 300.0, 200.0, 250.0, 4800.0, 310.0)):
        starts.add(gang(attempt=attempt), {"weights": weights})
    assert len(starts.seen) == 5
    assert starts.seconds == 60.0 + 310.0, "one hour is chance, and the first is forgotten"
    starts.add(gang(attempt=6), {"weights": 4000.0})
    assert starts.seconds == 60.0 + 4000.0, "and two are none"
