"""What the chart renders, by values: images, flags, mounted profiles, and refusals of values that mean nothing."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from r1_operator.api.crd import custom_resource_definition, schema_of
from r1_operator.api.names import (
    COMPONENT_ENGINE,
    COMPONENT_GATEWAY,
    LABEL_COMPONENT,
    LEASE_NAME,
    PORT_ENGINE_HTTP,
    PORT_GATEWAY_METRICS,
    PORT_OPERATOR,
)
from r1_operator.api.parse import parse_hardware_profile
from r1_operator.api.types import HardwareProfile
from r1_operator.controller.options import Options, read_options
from r1_operator.manifests.context import ImagePull
from r1_operator.rounds.host_paths import DEFAULT_PREFIXES
from r1_operator.rounds.reading import read_subject

from tests.chart.cases import PROFILE
from tests.chart.conftest import CHART, Server
from tests.cluster.config import CHECKOUT

VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
pytestmark = pytest.mark.cluster


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [obj for obj in objects if obj["kind"] == kind]
    return found


def container(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def test_helm_lint_has_no_complaint(server: Server) -> None:
    assert "0 chart(s) failed" in server.helm("lint", "--strict", str(CHART))


def options_of(objects: list[dict[str, Any]], profiles: Path) -> Options:
    """What the operator reads from its rendered command line, by its own parser."""
    policies = profiles.with_name("network-policies.yaml")
    where = {
        "$(POD_NAMESPACE)": "r1-system",
        "/etc/r1-operator/hardware-profiles.yaml": str(profiles),
        "/etc/r1-operator/network-policies.yaml": str(policies),
    }
    arguments = list(container(objects)["args"])
    for text, meant in where.items():
        arguments = [argument.replace(text, meant) for argument in arguments]
    files = one(objects, "ConfigMap")["data"]
    profiles.write_text(files["hardware-profiles.yaml"])
    policies.write_text(files.get("network-policies.yaml", ""))
    return read_options(arguments, {"POD_NAME": "r1-operator-0"})


def test_values_become_the_operators_options(server: Server, tmp_path: Path) -> None:
    values = {
        "images": {
            "registry": "registry.example/r1/",
            "tag": "2.0",
            "pullPolicy": "Always",
            "pullSecrets": [{"name": "registry"}, {"name": "mirror"}],
            "engine": {"tag": "sha256:" + "a" * 64},
        },
        "watchNamespaces": ["a", "b"],
        "fabricLabel": "example.com/rail",
        "logLevel": "debug",
        "hardwareProfiles": [
            PROFILE | {"name": "Odd8", "nodeLabels": [{"key": "pool", "values": ["a", "b"]}]},
            {"name": "H100x8", "extends": "H100x8", "resources": {"limits": {"rdma/ib": 1}}},
        ],
    }
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    objects = server.rendered("--values", str(file))
    assert container(objects)["image"] == "registry.example/r1/r1-operator:2.0"
    options = options_of(objects, tmp_path / "profiles.yaml")
    settings = options.settings
    assert settings.engine_image == "registry.example/r1/r1-engine@sha256:" + "a" * 64
    assert settings.gateway_image == "registry.example/r1/r1-gateway:2.0"
    assert settings.fabric_label == "example.com/rail"
    assert settings.profiles["Odd8"].given == parse_hardware_profile(values["hardwareProfiles"][0])
    assert settings.profiles["H100x8"].given.resources.limits == {"rdma/ib": "1"}
    assert settings.images == ImagePull("Always", ("registry", "mirror"))
    assert (options.namespaces, options.lease_namespace) == (("a", "b"), "r1-system")
    assert (options.log_level, options.port, options.identity) == ("debug", PORT_OPERATOR, "r1-operator-0")


def test_defaults_are_good_options(server: Server, tmp_path: Path) -> None:
    options = options_of(server.rendered(), tmp_path / "profiles.yaml")
    assert (options.namespaces, options.settings.engine_image) == ((), f"r1-engine:{VERSION}")


def test_what_make_cluster_prints_lets_the_tiny_model_of_this_checkout_in(server: Server, tmp_path: Path) -> None:
    text = (CHECKOUT / "scripts" / "cluster.sh").read_text().replace("$PWD", str(CHECKOUT))
    install = re.search(r"helm install r1 charts/r1-operator (.+?[^\\\\])\n", text, re.DOTALL)
    assert install is not None
    words = shlex.split(install[1].replace("\\\n", " "))
    values = [word for flag, value in pairwise(words) if flag == "--set" for word in (flag, value)]
    settings = options_of(server.rendered(*values), tmp_path / "profiles.yaml").settings
    assert 'sed "s#/opt/r1#' in text
    tiny = (CHECKOUT / "examples" / "tiny.yaml").read_text().replace("/opt/r1", str(CHECKOUT))
    obj = yaml.safe_load(tiny)
    obj["metadata"] |= {"uid": "u", "generation": 1, "namespace": "default"}
    assert read_subject(obj, settings).valid.status == "True"


def test_other_profiles_are_another_pod(server: Server) -> None:
    """The file is read at the start only."""
    profile = {f"hardwareProfiles[0].{key}": value for key, value in PROFILE.items()}
    settings = ",".join(f"{key}={value}" for key, value in profile.items())
    before, after = (
        one(objects, "Deployment")["spec"]["template"]["metadata"]["annotations"]
        for objects in (server.rendered(), server.rendered("--set", settings))
    )
    assert before != after


def test_the_chart_knows_the_operators_seams(server: Server) -> None:
    objects = server.rendered()
    operator = container(objects)
    assert [port["containerPort"] for port in operator["ports"]] == [PORT_OPERATOR]
    assert f"--port={PORT_OPERATOR}" in operator["args"]
    named = [
        name
        for obj in objects
        for rule in obj.get("rules") or ()
        for name in rule.get("resourceNames") or ()
        if rule["resources"] == ["leases"]
    ]
    assert named == [LEASE_NAME]


def test_who_reaches_the_engines_and_which_folders_they_mount(server: Server, tmp_path: Path) -> None:
    settings = options_of(server.rendered(), tmp_path / "profiles").settings
    assert settings.host_path_prefixes == DEFAULT_PREFIXES
    assert settings.reach is not None
    (operator,) = settings.reach.operator
    pod = one(server.rendered(), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert operator["podSelector"]["matchLabels"].items() <= pod.items()
    assert operator["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "r1-system"}
    assert settings.reach.metrics == ()
    prometheus = "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.a=b,hostPaths.allowedPrefixes={/a,/b/c}"
    settings = options_of(server.rendered("--set", prometheus), tmp_path / "profiles").settings
    assert settings.reach is not None
    assert settings.reach.metrics == ({"namespaceSelector": {"matchLabels": {"a": "b"}}},)
    assert settings.host_path_prefixes == ("/a", "/b/c")
    assert options_of(server.rendered("--set", "networkPolicy.engines=false"), tmp_path / "p").settings.reach is None


def test_the_crd_is_the_generated_one(server: Server) -> None:
    crd = one(server.rendered(), "CustomResourceDefinition")
    assert crd["spec"] == custom_resource_definition()["spec"]
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "annotations" not in one(server.rendered("--set", "crds.keep=false"), "CustomResourceDefinition")["metadata"]
    kinds = {obj["kind"] for obj in server.rendered("--set", "crds.install=false")}
    assert "CustomResourceDefinition" not in kinds


def test_every_optional_part_renders(server: Server) -> None:
    settings = "metrics.serviceMonitor=true,metrics.podMonitor=true,networkPolicy.enabled=true,watchNamespaces={a,b}"
    settings += ",networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.a=b"
    objects = server.rendered("--set", settings, "--set", "metrics.monitorLabels.release=prometheus")
    kinds = sorted(obj["kind"] for obj in objects)
    assert {"ServiceMonitor", "PodMonitor", "NetworkPolicy"} <= set(kinds)
    assert kinds.count("Role") == kinds.count("RoleBinding") == 3
    monitors = [obj["spec"] for obj in objects if obj["kind"] == "PodMonitor"]
    assert all(monitor["namespaceSelector"] == {"matchNames": ["a", "b"]} for monitor in monitors)
    ports = {
        monitor["selector"]["matchLabels"][LABEL_COMPONENT]: monitor["podMetricsEndpoints"][0]["portNumber"]
        for monitor in monitors
    }
    assert ports == {COMPONENT_ENGINE: PORT_ENGINE_HTTP, COMPONENT_GATEWAY: PORT_GATEWAY_METRICS}
    assert one(objects, "ServiceMonitor")["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("image.tag=1", "additional properties 'image' not allowed"),
        ("images.tag=a b", "at '/images/tag'"),
        ("images.pullPolicy=Sometimes", "'Always', 'IfNotPresent', 'Never'"),
        ("logLevel=loud", "'debug', 'info', 'warning', 'error'"),
        ("replicas=-1", "at '/replicas'"),
        ("watchNamespaces={Prod}", "at '/watchNamespaces/0'"),
        ("crds.keep=maybe", "at '/crds/keep'"),
        ("hardwareProfiles[0].name=x", "at '/hardwareProfiles/0': missing properties 'gpusPerNode'"),
        ("metrics.service=false,metrics.serviceMonitor=true", "needs metrics.service, which is off; turn both on"),
        ("metrics.podMonitor=true", "networkPolicy.metricsFrom: is empty"),
        ("networkPolicy.metricsFrom[0].all=true", "additional properties 'all' not allowed"),
        ("hostPaths.allowedPrefixes={data}", "at '/hostPaths/allowedPrefixes/0'"),
        ("serviceAccount.create=false", "give the name of an existing one"),
    ],
)
def test_values_that_mean_nothing_are_refused(server: Server, setting: str, told: str) -> None:
    assert told in server.refusal("helm", "template", "r1-operator", str(CHART), "--set", setting)


def test_the_chart_has_the_projects_version() -> None:
    project = tomllib.loads((CHART.parents[1] / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (project, project)


def test_the_values_schema_knows_a_hardware_profile_as_the_resource_does() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["definitions"]["hardwareProfile"] == closed(schema_of(HardwareProfile))


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The same without what only Kubernetes knows, and with unknown fields refused."""
    kept = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes")}
    for key in {"items", "additionalProperties"} & set(kept):
        kept[key] = closed(kept[key])
    if "properties" in kept:
        kept["properties"] = {name: closed(prop) for name, prop in kept["properties"].items()}
        kept["additionalProperties"] = False
    return kept


def test_every_value_is_in_the_schema_and_in_the_readme() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    readme = (CHART / "README.md").read_text()
    for name, value in values.items():
        assert name in schema["properties"]
        for key in value if isinstance(value, dict) and name not in {"resources"} else ():
            assert f"`{name}.{key}" in readme, f"{name}.{key} is not in the chart's README"
            assert key in schema["properties"][name].get("properties", {key: None})
        assert f"`{name}" in readme, f"{name} is not in the chart's README"
