"""Engine pods as the API server returns them → frozen gangs. The one place that knows the shape of a pod's JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from ..api import names
from ..api.pinning import pinned_node
from ..api.timestamps import unix_time
from .gangs import Gang, Member, Termination

Json = Mapping[str, Any]


def owned_by(obj: Json, uid: str) -> bool:
    """Whether the R1Deployment of this uid is the object's controller: labels may be on anybody's."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") and owner.get("uid") == uid for owner in owners)


def owner_of(obj: Json) -> str | None:
    """uid of the R1Deployment that controls an object; None for somebody else's, whatever labels it carries."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((str(o["uid"]) for o in owners if o.get("controller") and o.get("kind") == names.KIND), None)


def gangs_of(pods: Iterable[Json]) -> tuple[Gang, ...]:
    """Group engine pods by gang, ordered by replica and attempt. Pods without our labels are skipped.

    Whose pods they are is for the caller to see to (`owned_by`).
    """
    members: dict[tuple[int, int], list[Member]] = defaultdict(list)
    facts: dict[tuple[int, int], tuple[str, int, str]] = {}
    for pod in pods:
        labels = pod["metadata"].get("labels") or {}
        gang = labels.get(names.LABEL_GANG)
        if labels.get(names.LABEL_COMPONENT) != names.COMPONENT_ENGINE or gang is None:
            continue
        try:
            key = (names.replica_of(gang), names.attempt_of(gang))
            member = member_of(pod)
            size = int(labels[names.LABEL_NODES])
        except (KeyError, ValueError):
            continue  # someone edited our labels: such a pod is not ours to judge
        members[key].append(member)
        facts[key] = (gang, size, labels.get(names.LABEL_REVISION, ""))
    return tuple(
        Gang(name, replica, attempt, size, revision, tuple(sorted(members[replica, attempt], key=lambda m: m.index)))
        for (replica, attempt), (name, size, revision) in sorted(facts.items())
    )


def member_of(pod: Json) -> Member:
    """One engine pod. Raises KeyError or ValueError if it carries no node index."""
    meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    ready = conditions.get("Ready", {})
    scheduled = conditions.get("PodScheduled", {})
    blocked = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    return Member(
        name=meta["name"],
        uid=meta.get("uid", ""),
        index=int(meta["labels"][names.LABEL_NODE_INDEX]),
        gated=any(g["name"] == names.SCHEDULING_GATE for g in spec.get("schedulingGates") or []),
        pinned=pinned_node(spec),
        node=spec.get("nodeName"),
        address=status.get("podIP"),
        phase=status.get("phase", "Pending"),
        ready=ready.get("status") == "True",
        changed_at=max(
            unix_time(ready.get("lastTransitionTime")) or 0.0, unix_time(scheduled.get("lastTransitionTime")) or 0.0
        ),
        created_at=unix_time(meta.get("creationTimestamp")) or 0.0,
        scheduled_at=unix_time(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "True" else None,
        running_since=_running_since(status),
        delete_deadline=unix_time(meta.get("deletionTimestamp")),
        unschedulable=scheduled.get("message", "") if blocked else None,
        waiting=_waiting(status),
        termination=_termination(status, unix_time(meta.get("creationTimestamp")) or 0.0),
    )


def _running_since(status: Json) -> float | None:
    for container in status.get("containerStatuses") or []:
        running = (container.get("state") or {}).get("running")
        if container.get("name") == names.CONTAINER_ENGINE and running:
            return unix_time(running.get("startedAt")) or 0.0
    return None


def waiting_reason(status: Json) -> tuple[str, str] | None:
    """Reason and message of the first container that is kept from starting; None if none is said to be."""
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting")
        if waiting and waiting.get("reason") not in {"ContainerCreating", "PodInitializing"}:
            return str(waiting.get("reason", "Waiting")), str(waiting.get("message", "no message"))
    return None


def _waiting(status: Json) -> str | None:
    """Why a container has not started, e.g. `ImagePullBackOff: ...`; None if nothing is reported."""
    found = waiting_reason(status)
    return f"{found[0]}: {found[1]}" if found else None


def _termination(status: Json, created_at: float) -> Termination | None:
    """How the engine ended. Its own container says so, not the pod's phase: an injected container may outlive it."""
    for container in status.get("containerStatuses") or []:
        ended = (container.get("state") or {}).get("terminated")
        if container.get("name") == names.CONTAINER_ENGINE and ended:
            reason, message, node = _last_words(ended)
            finished = unix_time(ended.get("finishedAt")) or created_at
            return Termination(int(ended.get("exitCode", -1)), reason, message, finished, node)
    if status.get("phase") not in {"Failed", "Succeeded"}:
        return None
    for container in status.get("initContainerStatuses") or []:
        ended = (container.get("state") or {}).get("terminated")
        if ended and ended.get("exitCode") and not status.get("reason"):
            return _init_failed(str(container.get("name")), ended, created_at)
    # No container says more: the kubelet evicted or refused the pod.
    reason, message = status.get("reason") or "PodFailed", status.get("message") or "the kubelet gave no message"
    return Termination(0 if status["phase"] == "Succeeded" else -1, reason, message, created_at)


def _init_failed(name: str, ended: Json, created_at: float) -> Termination:
    """A container before the engine: of podTemplate.spec.initContainers, or put there by an admission webhook."""
    words = (ended.get("message") or "").strip() or f"no message; see `kubectl logs -c {name}` of this pod"
    code = int(ended["exitCode"])  # not the engine's, whose codes mean something
    message = f"init container {name} ended with exit code {code}, so that the engine never started: {words}"
    return Termination(-1, "InitContainerFailed", message, unix_time(ended.get("finishedAt")) or created_at)


def _last_words(ended: Json) -> tuple[str, str, str]:
    """Reason, message and node as the engine left them in its termination log (contracts.md); else the kubelet's."""
    text = (ended.get("message") or "").strip()
    try:
        words = json.loads(text.splitlines()[-1]) if text else None
        if isinstance(words, dict) and isinstance(words.get("reason"), str):
            where = f" (node {words['node']})" if words.get("node") else ""
            return words["reason"], f"{words.get('message', '')}{where}", str(words.get("node") or "")
    except ValueError:
        pass
    reason = ended.get("reason") or "Error"
    return reason, text or f"the engine exited with code {ended.get('exitCode')} and left no message; see its log", ""
