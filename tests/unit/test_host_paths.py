"""Folders of the nodes: only below the prefixes that the site allows, whatever way the path is written."""

from __future__ import annotations

import posixpath
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from r1_operator.api.parse import parse
from r1_operator.api.types import R1Deployment, R1DeploymentSpec
from r1_operator.controller.options import OptionError, read_options
from r1_operator.rounds.host_paths import DEFAULT_PREFIXES, refused_host_path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
IMAGES = ("--engine-image", "e", "--gateway-image", "g")


def spec(path: str) -> R1DeploymentSpec:
    model = {"name": "r1-operator/tiny-r1", "weights": {"hostPath": {"path": path}}}
    return R1DeploymentSpec.model_validate({"model": model, "hardware": "CPUx1"})


@pytest.mark.parametrize(
    "path",
    ["/", "/etc", "/var/lib/kubelet", "/proc", "/var/lib", "/database", "/mnt/../etc", "/mnt/..", "//etc", "/./etc",
     "/var/lib/r1/../kubelet", "/mnt/a/../../etc/shadow", "/root", "/home", "/run"],
)  # fmt: skip
def test_what_a_node_lives_by_is_refused_with_the_remedy(path: str) -> None:
    try:
        made = spec(path)
    except ValueError:
        return  # the schema refuses it already
    refusal = refused_host_path(made, DEFAULT_PREFIXES)
    assert refusal is not None
    assert refusal.field == "spec.model.weights.hostPath.path"
    assert path in refusal.message
    assert "hostPaths.allowedPrefixes" in refusal.remedy
    assert refused_host_path(made, ("/",)) is None or ".." in path


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.name)
def test_every_example_lies_below_the_default_prefixes(file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        if document and document["kind"] == "R1Deployment":
            deployment = parse(document)
            assert isinstance(deployment, R1Deployment)
            assert refused_host_path(deployment.spec, DEFAULT_PREFIXES) is None


NAMES = st.sampled_from(["data", "dat", "r1", "etc", ".", "..", "", "var", "lib"])


@given(
    st.lists(NAMES, min_size=1, max_size=6), st.lists(st.sampled_from(["/data", "/var/lib", "/r1/data/"]), max_size=3)
)
def test_what_passes_lies_below_a_prefix_and_what_lies_below_passes(parts: list[str], prefixes: list[str]) -> None:
    path = "/" + "/".join(parts)
    try:
        made = spec(path)
    except ValueError:
        return
    real = "/" + posixpath.normpath(path).strip("/")
    below = any(f"{real}/".startswith(prefix.rstrip("/") + "/") for prefix in prefixes)
    assert (refused_host_path(made, prefixes) is None) == (below and ".." not in parts)


def test_the_flags_are_read_and_refused_with_their_names(tmp_path: Path) -> None:
    options = read_options([*IMAGES], {})
    assert options.settings.host_path_prefixes == DEFAULT_PREFIXES
    assert options.settings.reach is None
    with pytest.raises(OptionError, match="--host-path-prefixes: 'data'"):
        read_options([*IMAGES, "--host-path-prefixes", "data"], {})
    file = tmp_path / "reach.yaml"
    for content, told in (
        ("{", "readable YAML"),
        ("[]", "operator is empty"),
        ("operator: []", "operator is empty"),
        ("operator: [{}]", "none of them empty"),
        ("operator: x", "operator must be a list"),
    ):
        file.write_text(content)
        with pytest.raises(OptionError, match=f"(?s)--network-policies .*{told}"):
            read_options([*IMAGES, "--network-policies", str(file)], {})
