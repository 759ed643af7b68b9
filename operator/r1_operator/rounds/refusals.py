"""What the API server says when it refuses a pod → what to do about it. Pure.

The words are Kubernetes' own: admission plugins PodSecurity, LimitRanger, ServiceAccount, Priority and RuntimeClass,
webhooks and policies. Of words that nobody knows, the refusal itself has to be enough.
"""

from __future__ import annotations

import re
from typing import Final

_POD: Final = "spec.engine.podTemplate.spec"

_REMEDIES: Final = tuple(
    (re.compile(words), remedy)
    for words, remedy in (
        (
            r'violates PodSecurity "',
            "engine pods need hostPath weights, IPC_LOCK over several nodes, and what spec.engine.securityContext and "
            f"{_POD}.hostNetwork ask for: label the namespace pod-security.kubernetes.io/enforce=privileged, or leave"
            " out what it names (weights on a persistentVolumeClaim)",
        ),
        (
            r"(?:minimum|maximum) (?:cpu|memory|ephemeral-storage)\S* usage per |(?:cpu|memory) max limit to request",
            "set spec.engine.resources (cpu, memory, requests, limits) to what the LimitRange of the namespace allows,"
            " or change the LimitRange",
        ),
        (
            r'admission webhook "[^"]*" denied',
            "change what this webhook objects to, in the spec or in its policy for this namespace",
        ),
        (r'failed calling webhook "', "the webhook does not answer: mend it, or take this namespace out of its rules"),
        (r"ValidatingAdmissionPolicy '", "change what this policy objects to, in the spec or in the policy's binding"),
        (r'serviceaccount "[^"]*" not found', f"create it in this namespace, or correct {_POD}.serviceAccountName"),
        (r"no PriorityClass with name", f"create it, or correct {_POD}.priorityClassName"),
        (r'RuntimeClass "[^"]*" not found', f"create it, or correct {_POD}.runtimeClassName"),
        (r" is invalid: ", "correct what it names in spec.engine or in the hardware profile"),
    )
)
_OTHERWISE: Final = "change what it objects to, in the spec or in the namespace's policy"


def remedy(message: str) -> str:
    """What to do about a refusal with these words."""
    return next((told for words, told in _REMEDIES if words.search(message)), _OTHERWISE)
