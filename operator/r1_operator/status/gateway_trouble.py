"""Why a gateway's pods do not come up, from its Deployment and their own states. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Object = Mapping[str, Any]
"""A Kubernetes object as parsed JSON."""

_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_REFUSED = (
    # What the API server says of a pod it does not take → what helps. The first that fits counts.
    ("exceeded quota", "free some of the quota or raise it"),
    ("failed quota", "the quota asks for what the pods do not name: a LimitRange with defaults gives it to them"),
    ("PodSecurity", "the namespace's pod security level refuses it: choose a namespace of another level"),
    ("admission webhook", "ask whoever owns that webhook to let it pass"),
    ("LimitRange", "widen the namespace's LimitRange"),
)


def gateway_trouble(deployment: Object | None, pods: Iterable[Object]) -> str | None:
    """What keeps pods of the gateway from running, with the remedy; None if nothing is known to.

    `deployment`: the gateway's, None before it is made. `pods`: all of its pods. Of several troubles the first of: the
    API server refuses pods, a container cannot start, no node takes a pod, the Deployment stands still.
    """
    conditions = {c["type"]: c for c in _status(deployment or {}).get("conditions") or ()}
    refused = conditions.get("ReplicaFailure") or {}
    if refused.get("status") == "True":
        return _refused(str(refused.get("message") or refused.get("reason")))
    troubles = sorted(trouble for pod in pods for trouble in _troubles_of(pod))
    if troubles:
        return troubles[0][1]
    progressing = conditions.get("Progressing") or {}
    if progressing.get("status") == "False":
        return f"its Deployment does not progress: {progressing.get('message')}; see its events and its pods"
    return None


def _refused(message: str) -> str:
    remedy = next((remedy for words, remedy in _REFUSED if words in message), "see who refuses it and why")
    return f"a pod of it is refused: {message}; {remedy}"


def _troubles_of(pod: Object) -> Iterator[tuple[int, str]]:
    """(rank, words); no pod's name and no back-off's length in the words: they would change the status all the time."""
    if pod["metadata"].get("deletionTimestamp"):
        return
    status = _status(pod)
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        trouble = _container_trouble(container)
        if trouble:
            yield 0, trouble
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            words = condition.get("message") or condition.get("reason")
            yield 1, f"no node takes a pod of it: {words}; make room, or lower spec.gateway.replicas"


def _container_trouble(container: Object) -> str | None:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, words = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    name = container["name"]
    if reason in _IMAGE:
        remedy = "correct spec.gateway.image, or let the nodes reach and log in to its registry"
        return f"the image {container.get('image')!r} of container {name} cannot be pulled: {remedy}"
    last = (container.get("lastState") or {}).get("terminated") or {}
    # Between two back-offs it runs for a moment: the trouble is the same.
    fails = last.get("exitCode") and not container.get("ready") and int(container.get("restartCount") or 0) > 1
    if reason == "CrashLoopBackOff" or fails:
        said = str(last.get("message") or "").strip()[-300:]
        how = f"exit code {last.get('exitCode')}{': ' if said else ''}{said}"
        return f"container {name} ends again and again ({how}); see its log"
    if reason == "CreateContainerConfigError" and "secret" in words.lower():
        remedy = "spec.gateway.apiKeySecret names what is not there: create it, or correct its name or key"
        return f"container {name} cannot start: {words}; {remedy}"
    if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        return f"container {name} cannot start: {reason}: {words}; make what it names, or correct spec.gateway"
    return None


def _status(obj: Object) -> Mapping[str, Any]:
    return obj.get("status") or {}
