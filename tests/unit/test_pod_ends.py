"""What is told of a pod that ended: the engine's last words, an init container's, or the kubelet's."""

from __future__ import annotations

from typing import Any

from r1_operator.lifecycle.judging import Evidence, judge
from r1_operator.lifecycle.pods import gangs_of

NOW = 1_700_000_000.0
ENDED_AT = "2026-11-25T13:01:00Z"


def told_of(status: dict[str, Any]) -> tuple[str, str, bool]:
    """Reason and message of the failure of a gang of this one pod, and whether another try is hopeless."""
    pod = {
        "metadata": {
            "name": "r1-0-0-0",
            "uid": "u",
            "creationTimestamp": "2026-11-25T13:00:00Z",
            "labels": {
                "app.kubernetes.io/component": "engine",
                "r1operator.dev/gang": "r1-0-0",
                "r1operator.dev/node-index": "0",
                "r1operator.dev/nodes": "1",
            },
        },
        "spec": {"nodeName": "n7"},
        "status": {"phase": "Failed", **status},
    }
    failure = judge(gangs_of([pod])[0], Evidence(600), NOW).failure
    assert failure is not None
    return failure.reason, failure.message, failure.configuration


def ended(name: str, code: int, message: str = "") -> dict[str, Any]:
    return {"name": name, "state": {"terminated": {"exitCode": code, "message": message, "finishedAt": ENDED_AT}}}


def waits(name: str) -> dict[str, Any]:
    return {"name": name, "state": {"waiting": {"reason": "PodInitializing"}}}


def test_last_words_are_read_from_the_termination_log() -> None:
    words = '{"reason": "TokenizerNotFound", "message": "no tokenizer.json; copy it", "node": "n7"}'
    told = told_of({"containerStatuses": [ended("engine", 78, words)]})
    assert told == ("TokenizerNotFound", "pod r1-0-0-0 on node n7: no tokenizer.json; copy it (node n7)", True)


def test_an_init_container_that_failed_is_named_and_its_code_is_not_taken_for_the_engines() -> None:
    statuses = {"initContainerStatuses": [ended("copy", 0), ended("plugin", 78, "no space left")]}
    reason, message, hopeless = told_of({**statuses, "containerStatuses": [waits("engine")]})
    assert (reason, hopeless) == ("InitContainerFailed", False)
    assert "init container plugin ended with exit code 78" in message
    assert "no space left" in message
    silent = told_of({"initContainerStatuses": [ended("plugin", 1)], "containerStatuses": [waits("engine")]})
    assert "kubectl logs -c plugin" in silent[1]


def test_a_sidecar_that_was_killed_with_its_pod_is_no_cause() -> None:
    sidecar = [ended("daemon", 137)]
    assert told_of({"initContainerStatuses": sidecar, "containerStatuses": [ended("engine", 70, "words")]})[1].endswith(
        "words"
    )
    evicted = {"reason": "Evicted", "message": "The node was low on resource: memory."}
    assert told_of({**evicted, "initContainerStatuses": sidecar})[0] == "Evicted"
