"""Nodes, and the pods' life on them: what kubelet and engine do, on objects as the API server returns them."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from r1_operator.api import names
from r1_operator.api.pinning import pinned_affinity, pinned_node
from r1_operator.api.timestamps import rfc3339, unix_time
from r1_operator.placement.nodes import OUT_OF_SERVICE, holder_of

Pod = dict[str, Any]


def node(name: str, memory: str, resource: str, devices: int = 1) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(0)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {}},
        "spec": {},
        "status": {"allocatable": {resource: str(devices), "memory": memory, "cpu": "256"}, "conditions": [ready]},
    }


@dataclass
class Machines:
    """`silent`: kubelets that say nothing, while what they run goes on. `off`: machines that are really gone; their
    kubelets are silent, too. `mute`: gangs whose agent the operator cannot reach."""

    resource: str
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    off: set[str] = field(default_factory=set)
    unready: set[str] = field(default_factory=set)
    """Gangs whose readiness probes fail although they serve."""
    images_gone: bool = False
    """No container is started any more: its image cannot be pulled."""
    mute: set[str] = field(default_factory=set)
    starting: set[str] = field(default_factory=set)
    """Gangs that load still: their containers run, and nobody is served."""
    bad: set[str] = field(default_factory=set)
    """Values of the engine's variable REVISION with which it ends as soon as it starts."""

    # --- writes, as the API server takes them ------------------------------------------------------------------------
    def create(self, pod: Pod, now: float) -> None:
        made = copy.deepcopy(pod)
        name = made["metadata"]["name"]
        assert name not in self.pods, f"{name} is created while it exists"
        made["metadata"] |= {"uid": f"uid-{name}-{now}", "creationTimestamp": rfc3339(now)}
        made["status"] = {"phase": "Pending"}
        self.pods[name] = made

    def delete(self, name: str, grace: float | None, now: float) -> None:
        pod = self.pods[name]
        seconds = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
        if not pod["spec"].get("nodeName") or _over(pod) or seconds == 0:
            del self.pods[name]
            return
        before = unix_time(pod["metadata"].get("deletionTimestamp"))
        deadline = now + seconds if before is None else min(before, now + seconds)
        pod["metadata"]["deletionTimestamp"] = rfc3339(deadline)

    def bind(self, name: str, to: str, now: float) -> None:
        spec = self.pods[name]["spec"]
        spec["affinity"] = pinned_affinity(to)
        spec["schedulingGates"] = []
        if spec.get("nodeName") is None:
            spec["nodeName"] = to
            self._condition(self.pods[name], "PodScheduled", "True", now)

    # --- time --------------------------------------------------------------------------------------------------------
    def advance(self, now: float) -> None:
        """Starts finish, drains end, kubelets that live report; the node controller marks the silent ones."""
        for name in self.nodes:
            gone = name in self.silent | self.off
            self._condition(self.nodes[name], "Ready", "Unknown" if gone else "True", now)
        for name, pod in list(self.pods.items()):
            where = pod["spec"].get("nodeName")
            if where is None:
                continue
            if where in self.silent | self.off:
                if not _over(pod):
                    self._condition(pod, "Ready", "False", now)  # as the node controller does
                continue
            if where not in self.nodes:
                del self.pods[name]  # the pod garbage collector
                continue
            deadline = unix_time(pod["metadata"].get("deletionTimestamp"))
            if deadline is not None and now >= deadline:
                del self.pods[name]
            elif not _over(pod) and deadline is None:
                self._run(pod, now)

    def _run(self, pod: Pod, now: float) -> None:
        gang = pod["metadata"]["labels"][names.LABEL_GANG]
        engine = {"name": names.CONTAINER_ENGINE, "state": {"running": {"startedAt": rfc3339(now)}}}
        if pod["status"]["phase"] == "Pending" and self.images_gone:
            engine["state"] = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
            pod["status"]["containerStatuses"] = [engine]
            return
        if pod["status"]["phase"] == "Pending":
            pod["status"] |= {"phase": "Running", "podIP": f"ip-{pod['metadata']['name']}", "startTime": rfc3339(now)}
            pod["status"]["containerStatuses"] = [engine]
            if self._is_bad(pod):
                self.end(gang, 70, now, range(99))
        ended = any("terminated" in c["state"] for c in pod["status"]["containerStatuses"])
        ready = not ended and gang not in self.unready | self.starting
        self._condition(pod, "Ready", "True" if ready else "False", now)

    def _is_bad(self, pod: Pod) -> bool:
        env = pod["spec"]["containers"][0].get("env") or ()
        return any(v["name"] == "REVISION" and v.get("value") in self.bad for v in env)

    def cordon(self, name: str, *, off: bool = False) -> None:
        self.nodes[name]["spec"]["unschedulable"] = not off

    def end(self, gang: str, code: int, now: float, members: Iterable[int], *, sidecar: bool = False) -> None:
        """The engine containers of these members end. With a sidecar the pods live on."""
        for pod in self.of(gang):
            index = int(pod["metadata"]["labels"][names.LABEL_NODE_INDEX])
            where = pod["spec"].get("nodeName")
            if index not in members or where is None or where in self.silent | self.off or _over(pod):
                continue
            message = '{"reason": "RankDied", "message": "injected"}'
            state = {"terminated": {"exitCode": code, "message": message, "finishedAt": rfc3339(now)}}
            pod["status"]["containerStatuses"] = [{"name": names.CONTAINER_ENGINE, "state": state}]
            if not sidecar:
                pod["status"]["phase"] = "Failed" if code else "Succeeded"
            self._condition(pod, "Ready", "False", now)

    def _condition(self, obj: dict[str, Any], type_: str, status: str, now: float) -> None:
        conditions = obj["status"].setdefault("conditions", [])
        found = next((c for c in conditions if c["type"] == type_), None)
        if found is None:
            conditions.append({"type": type_, "status": status, "lastTransitionTime": rfc3339(now)})
        elif found["status"] != status:
            found |= {"status": status, "lastTransitionTime": rfc3339(now)}

    # --- the truth ---------------------------------------------------------------------------------------------------
    def of(self, gang: str) -> list[Pod]:
        return [p for p in self.pods.values() if p["metadata"]["labels"].get(names.LABEL_GANG) == gang]

    def gangs(self) -> list[str]:
        return sorted({p["metadata"]["labels"][names.LABEL_GANG] for p in self.pods.values()})

    def serves(self, gang: str) -> bool:
        """Whether users' requests are answered there, whatever anybody thinks of it."""
        pods = self.of(gang)
        whole = pods and len(pods) == int(pods[0]["metadata"]["labels"][names.LABEL_NODES])
        return bool(whole and gang not in self.starting) and all(
            p["spec"].get("nodeName") not in {None, *self.off}
            and p["status"]["phase"] == "Running"
            and all("running" in c["state"] for c in p["status"]["containerStatuses"])
            and "deletionTimestamp" not in p["metadata"]
            for p in pods
        )

    def taint_out_of_service(self, name: str) -> None:
        self.nodes[name]["spec"]["taints"] = [{"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"}]

    def holders(self) -> list[str]:
        return [where for p in self.pods.values() if (where := holder_of(p)) is not None]

    def pinned(self, name: str) -> str | None:
        return pinned_node(self.pods[name]["spec"])


def _over(pod: Pod) -> bool:
    return pod["status"]["phase"] in {"Failed", "Succeeded"}
