"""Pods of the examples as a real API server takes them: what it fills in by itself is no change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from r1_operator.manifests.template import gang_pod, template_of
from r1_operator.rounds.admitted import changed_in_admission

from tests.chart.conftest import Server
from tests.unit.rendering import EXAMPLES, context_of

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_pod_that_nobody_changed_is_as_asked(server: Server, path: Path) -> None:
    obj = yaml.safe_load(path.read_text())
    # Amounts that the API server writes in another way.
    amounts = {"sharedMemory": "1024Mi", "memory": "1048576Mi"}
    resources = obj["spec"].get("engine", {}).get("resources", {}) | amounts
    template = template_of(context_of(obj, engine={"resources": resources}))
    pod = gang_pod(template, 0, 1, template.size - 1)
    pod["metadata"]["namespace"] = "default"
    live = json.loads(server.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", objects=[pod]))
    assert live["spec"]["containers"][0]["resources"]["limits"]["memory"] == "1Ti"
    assert changed_in_admission(template.pod["spec"], live["spec"]) == ()
