"""Apply → first token, split by stage."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.behaviour.world import Reader
from tests.e2e.site import Site

from .traffic import ask

PERIOD_SECONDS = 0.2
LONGEST_SECONDS = 480.0


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds of each step, in order; they add up to `total`. `engine`: what the engine says its stages took."""

    steps: Mapping[str, float]
    engine: Mapping[str, float]
    total: float


def measure_start(site: Site, reader: Reader, manifest: Mapping[str, Any]) -> Start:
    """Applies the manifest and waits for the first token through the gateway. Raises TimeoutError."""
    model = manifest["spec"]["model"]["servedName"]
    began = time.time()
    site.kubectl("apply", "--filename", "-", stdin=json.dumps(manifest))
    reached: dict[str, float] = {}
    path = f"/api/v1/namespaces/{site.namespace}/pods"
    while "pods ready" not in reached:
        pods = reader.get(path, labelSelector="app.kubernetes.io/component=engine")["items"]
        for step in steps_done(pods, manifest["spec"]["topology"]["nodesPerReplica"]):
            reached.setdefault(step, time.time())
        if time.time() - began > LONGEST_SECONDS:
            raise TimeoutError(f"no token within {LONGEST_SECONDS:.0f} s of apply; status: {site.status()}")
        time.sleep(PERIOD_SECONDS)
    port = int(site.gateway().rsplit(":", 1)[1])
    while (answer := ask(port, model)).status != 200:
        if time.time() - began > LONGEST_SECONDS:
            raise TimeoutError(f"the replica is ready, but the gateway answers {answer.status}")
        time.sleep(PERIOD_SECONDS)
    reached["first token"] = answer.answered
    head = next(p for p in pods if p["metadata"]["labels"]["r1operator.dev/node-index"] == "0")
    return Start(_differences(began, reached), _engine_stages(site, head), reached["first token"] - began)


def steps_done(pods: list[dict[str, Any]], size: int) -> list[str]:
    """The steps that all pods of the gang have behind them, in order."""
    if len(pods) < size:
        return []
    tests: dict[str, Callable[[Mapping[str, Any]], bool]] = {
        "pods created": lambda _: True,
        "nodes chosen and bound": lambda p: bool(p["spec"].get("nodeName")),
        "containers run": lambda p: p["status"].get("phase") == "Running",
        "pods ready": lambda p: any(
            c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", ())
        ),
    }
    return [step for step, test in tests.items() if all(test(pod) for pod in pods)]


def _differences(began: float, reached: Mapping[str, float]) -> dict[str, float]:
    steps, last = {}, began
    for step, at in reached.items():
        steps[step], last = at - last, at
    return steps


def _engine_stages(site: Site, head: Mapping[str, Any]) -> dict[str, float]:
    answer = site.cluster.exec_inside(
        ["curl", "-sf", "-m", "5", f"http://{head['status']['podIP']}:8500/status"], capture_output=True
    )
    return dict(json.loads(answer.stdout)["timings"])
