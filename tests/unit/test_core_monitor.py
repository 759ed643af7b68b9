"""The monitor: a replica of which a rank is silent has no load; it does not have a small one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from r1_operator.api import names
from r1_operator.autoscaling.window import ReplicaLoad
from r1_operator.cluster.resources import CONFIG_MAPS
from r1_operator.controller.monitor import SILENCE_SECONDS, Monitor
from r1_operator.controller.ports import AgentReading
from r1_operator.telemetry.http import Failure

KEY = ("ns", "r1")
LOAD = ReplicaLoad(0.5, 100.0, 3, 1)


class Objects:
    """One ready gang of one pod, and its config map: cache and inventory at once."""

    def deployments(self) -> tuple[tuple[str, str], ...]:
        return (KEY,)

    def pods(self, key: tuple[str, str], component: str) -> list[dict[str, Any]]:
        assert (key, component) == (KEY, names.COMPONENT_ENGINE)
        pod_labels = names.base_labels("r1", names.COMPONENT_ENGINE) | names.engine_pod_labels("r1", 0, 2, 0, "a")
        return [
            {
                "metadata": {
                    "name": "r1-0-2-0",
                    "namespace": "ns",
                    "ownerReferences": [{"kind": "R1Deployment", "uid": "u", "controller": True}],
                    "labels": {**pod_labels, names.LABEL_NODES: "1"},
                },
                "status": {
                    "phase": "Running",
                    "podIP": "10.0.0.1",
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }
        ]

    def get(self, resource: object, namespace: str, name: str) -> dict[str, Any] | None:
        assert (resource, name) == (CONFIG_MAPS, names.engine_config_map("r1", 0, 2))
        return {"data": {names.ENGINE_CONFIG_KEY: json.dumps({"attentionDataParallel": 16})}}


class Engines:
    """Answers, for a replica of which `reporting` ranks report."""

    def __init__(self, reporting: int) -> None:
        self.reporting = reporting
        self.sick: tuple[str, ...] = ()
        self.reachable = True
        self.frozen: asyncio.Event | None = None
        self.asked = 0

    async def readings(self, addresses: Collection[str]) -> Mapping[str, AgentReading | Failure]:
        self.asked += 1
        if self.frozen is not None:
            await self.frozen.wait()
        said = AgentReading("Ready", "", {}, self.sick) if self.reachable else Failure("no answer in time")
        return dict.fromkeys(addresses, said)

    async def loads(self, ranks: Mapping[str, int | None]) -> Mapping[str, ReplicaLoad | Failure]:
        short = Failure("a rank is silent")
        return {address: LOAD if count == self.reporting else short for address, count in ranks.items()}


def monitor_of(engines: Engines, notify: Callable[[Any], object], clock: Callable[[], float]) -> Monitor:
    return Monitor(Objects(), Objects(), engines, notify, clock)  # type: ignore[arg-type]


async def test_a_silent_rank_makes_the_sample_incomplete() -> None:
    for reporting, complete in ((16, True), (15, False)):
        monitor = monitor_of(Engines(reporting), lambda _: None, lambda: 1000.0)
        await monitor.look_at_loads()
        (sample,) = monitor.window(KEY)
        assert (sample.complete, sample.missing) == (complete, 0 if complete else 1)
        assert monitor.loads(KEY) == ({"r1-0-2": 4} if complete else {})


async def test_a_gpu_that_turns_unhealthy_wakes_the_reconcile_once() -> None:
    engines, woken = Engines(16), []
    monitor = monitor_of(engines, woken.append, lambda: 1000.0)
    await monitor.look_at_gpus()
    engines.sick = ("GPU 3: 2 uncorrected ECC errors",)
    await monitor.look_at_gpus()
    engines.reachable = False
    await monitor.look_at_gpus()
    assert woken == [KEY]
    assert monitor.sick_gpus(KEY) == {"r1-0-2": ("r1-0-2-0: GPU 3: 2 uncorrected ECC errors",)}


async def test_one_late_answer_is_no_news_and_long_silence_is() -> None:
    engines, woken, now = Engines(16), [], [1000.0]
    monitor = monitor_of(engines, woken.append, lambda: now[0])
    await monitor.look_at_stages()
    assert woken == [KEY]
    engines.reachable = False
    now[0] += SILENCE_SECONDS - 1
    await monitor.look_at_stages()
    assert (len(woken), set(monitor.heard(KEY))) == (1, {"r1-0-2"})
    now[0] += 1
    await monitor.look_at_stages()
    assert (len(woken), set(monitor.heard(KEY))) == (2, set())
    assert monitor.silence(KEY) == {"r1-0-2": SILENCE_SECONDS}


async def test_a_frozen_engine_is_waited_for_by_nobody() -> None:
    """C3: one frozen head made each look 2.0 s in place of 0.5 s, for all gangs."""
    engines = Engines(16)
    engines.frozen = asyncio.Event()
    monitor = monitor_of(engines, lambda _: None, lambda: 1000.0)
    await monitor.look_at_stages()
    await monitor.look_at_stages()
    assert engines.asked == 1, "it is not asked again before it has answered"
    assert monitor.heard(KEY) == {}
    engines.frozen.set()
    await monitor.look_at_stages()
    assert set(monitor.heard(KEY)) == {"r1-0-2"}
