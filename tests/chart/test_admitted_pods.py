"""Pods of the examples as a real API server takes them: what it fills in by itself is no change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from r1_operator.manifests.template import gang_pod, template_of
from r1_operator.planning import built_in_profiles
from r1_operator.rounds.admitted import changed_in_admission
from r1_operator.rounds.reading import Settings, read_subject

from tests.chart.conftest import Server

pytestmark = pytest.mark.cluster
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
SETTINGS = Settings("engine:1", "gateway:1", built_in_profiles(), "fabric")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_pod_that_nobody_changed_is_as_asked(server: Server, path: Path) -> None:
    obj = next(each for each in yaml.safe_load_all(path.read_text()) if each["kind"] == "R1Deployment")
    obj["metadata"] |= {"uid": "u", "generation": 1, "namespace": "default"}
    engine = obj["spec"].setdefault("engine", {})
    # Amounts that the API server writes in another way.
    engine["resources"] = {**engine.get("resources", {}), "sharedMemory": "1024Mi", "memory": "1048576Mi"}
    context = read_subject(obj, SETTINGS).context
    assert context is not None
    template = template_of(context)
    pod = gang_pod(template, 0, 1, template.size - 1)
    live = json.loads(server.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", objects=[pod]))
    assert live["spec"]["containers"][0]["resources"]["limits"]["memory"] == "1Ti"
    assert changed_in_admission(template.pod["spec"], live["spec"]) == ()
