"""Each way in which the API server refuses a pod ends in a remedy of its own."""

from __future__ import annotations

import pytest
from r1_operator.rounds.refusals import remedy

FORBIDDEN = 'pods "r1-0-0-0" is forbidden: '


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ('violates PodSecurity "baseline:latest": hostPath volumes (volume "models")', "enforce=privileged"),
        ("minimum cpu usage per Container is 500m, but request is 100m", "spec.engine.resources"),
        (
            "[maximum cpu usage per Pod is 4, but limit is 8, maximum memory usage per Pod is 1Gi, but limit is 9Gi]",
            "Lim",
        ),
        ("memory max limit to request ratio per Container is 1, but provided ratio is 2.0", "LimitRange"),
        ('error looking up service account ns/x: serviceaccount "x" not found', "podTemplate.spec.serviceAccountName"),
        ("no PriorityClass with name x was found", "podTemplate.spec.priorityClassName"),
        ('pod rejected: RuntimeClass "x" not found', "podTemplate.spec.runtimeClassName"),
        ("ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", "binding"),
        ("something new", "in the spec or in the namespace's policy"),
    ],
)
def test_a_forbidden_pod(words: str, told: str) -> None:
    assert told in remedy(FORBIDDEN + words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ('admission webhook "validate.kyverno.svc-fail" denied the request: no privileged pods', "webhook objects to"),
        ('Internal error occurred: failed calling webhook "a.b": failed to call webhook: EOF', "does not answer"),
        ('Pod "r1-0-0-0" is invalid: spec.containers[0].resources.requests: Invalid value: "9"', "spec.engine"),
    ],
)
def test_other_refusals(words: str, told: str) -> None:
    assert told in remedy(words)
