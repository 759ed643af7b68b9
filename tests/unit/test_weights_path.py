"""`spec.model.weights.path`: the volume is mounted whole, and config.json lies in a folder of it."""

from __future__ import annotations

from typing import Any

import pytest
from r1_operator.manifests.template import Template
from r1_simulate.cluster import SimulatedCluster, spec_of

CLAIM = {"persistentVolumeClaim": {"claimName": "models"}}
HUB = {"hostPath": {"path": "/data/hub"}}


def template(weights: dict[str, Any]) -> Template:
    cluster = SimulatedCluster(spec_of() | {"model": {"name": "r1-operator/tiny-r1", "weights": weights}})
    cluster.settle(2)
    (found,) = cluster.templates.values()
    return found


@pytest.mark.parametrize("source", [CLAIM, HUB])
@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("", "/models"),
        ("r1-0528", "/models/r1-0528"),
        ("models--a--b/snapshots/0123/", "/models/models--a--b/snapshots/0123"),
        ("./r1", "/models/r1"),
    ],
)
def test_the_whole_volume_is_mounted_and_the_path_lies_inside(source: dict[str, Any], path: str, read: str) -> None:
    found = template(source | {"path": path})
    assert found.config["modelPath"] == read
    (mount,) = [m for m in found.pod["spec"]["containers"][0]["volumeMounts"] if m["name"] == "models"]
    assert mount == {"name": "models", "mountPath": "/models", "readOnly": True}


def test_other_weights_of_one_volume_are_another_model() -> None:
    """Two of them never answer behind one name, as with another volume."""
    assert template(CLAIM | {"path": "a"}).served != template(CLAIM | {"path": "b"}).served
    assert template(CLAIM).served == template(CLAIM | {"path": "."}).served
