"""The release on a real API server: install, upgrade, uninstall, the rights it gives, the pod it admits."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.cases import GOOD, merged
from tests.chart.conftest import CHART, Server
from tests.chart.test_rendering import one
from tests.crd import await_crd

pytestmark = pytest.mark.cluster
ACCOUNT = "system:serviceaccount:r1-system:r1-operator"
CRD = "crd/r1deployments.r1operator.dev"

NEEDED = {
    "r1deployments.r1operator.dev": "get list watch",
    "r1deployments.r1operator.dev/status": "get patch",
    "r1deployments.r1operator.dev/finalizers": "update",
    "pods": "get list watch create patch delete",
    "configmaps": "get list watch create patch delete",
    "services": "get list watch create patch",
    "secrets": "create",
    "networkpolicies.networking.k8s.io": "get list watch create patch delete",
    "deployments.apps": "get list watch create patch",
    "persistentvolumeclaims": "get list watch",
    "poddisruptionbudgets.policy": "get list watch create patch",
    "events": "get list create patch",
}
FORBIDDEN = {
    "r1deployments.r1operator.dev": "create update patch delete deletecollection",
    "pods": "update deletecollection",
    "pods/exec": "create get",
    "pods/log": "get",
    "pods/eviction": "create",
    "configmaps": "update deletecollection",
    "services": "update delete",
    "secrets": "get list watch update patch delete deletecollection",
    "networkpolicies.networking.k8s.io": "update deletecollection",
    "deployments.apps": "update delete",
    "statefulsets.apps": "get create",
    "persistentvolumeclaims": "create patch delete",
    "poddisruptionbudgets.policy": "update delete",
    "events": "update delete",
    "serviceaccounts/token": "create",
    "roles.rbac.authorization.k8s.io": "get create bind escalate",
    "leases.coordination.k8s.io": "get create update",
}
CLUSTER_WIDE_NEEDED = {"nodes": "get list watch"}
CLUSTER_WIDE_FORBIDDEN = {
    "nodes": "create update patch delete",
    "nodes/proxy": "get",
    "clusterroles.rbac.authorization.k8s.io": "get create bind escalate",
    "customresourcedefinitions.apiextensions.k8s.io": "create update patch delete",
    "namespaces": "create delete",
    "users": "impersonate",
}


def allowed(
    server: Server, rights: dict[str, str], namespace: str | None, *, name: str | None = None
) -> dict[tuple[str, str], bool]:
    """(resource, verb) → whether the operator's account may, by the API server's own authorizer."""
    asked = [(resource, verb) for resource, verbs in rights.items() for verb in verbs.split()]
    reviews = []
    for resource, verb in asked:
        kind, _, subresource = resource.partition("/")
        plural, _, group = kind.partition(".")
        attributes = {"verb": verb, "resource": plural, "group": group, "subresource": subresource}
        attributes |= {key: value for key, value in (("namespace", namespace), ("name", name)) if value}
        reviews.append(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {"user": ACCOUNT, "resourceAttributes": attributes},
            }
        )
    printed = server.kubectl("create", "-f", "-", "-o", r'jsonpath={.status.allowed}{"\n"}', objects=reviews)
    answers = [line == "true" for line in printed.split()]
    return dict(zip(asked, answers, strict=True))


@pytest.fixture(scope="module")
def installed(server: Server) -> Iterator[Server]:
    # Nothing runs on this API server, so that nothing can be waited for.
    settings = ("--set", "crds.install=false")
    server.helm("install", "r1-operator", str(CHART), "--namespace", "r1-system", "--create-namespace", *settings)
    yield server
    server.helm("uninstall", "r1-operator", "--namespace", "r1-system")


def test_the_operator_may_do_what_it_does_and_nothing_else(installed: Server) -> None:
    needed = allowed(installed, NEEDED, "anywhere") | allowed(installed, CLUSTER_WIDE_NEEDED, None)
    assert [key for key, yes in needed.items() if not yes] == []
    forbidden = allowed(installed, FORBIDDEN, "anywhere") | allowed(installed, CLUSTER_WIDE_FORBIDDEN, None)
    assert [key for key, yes in forbidden.items() if yes] == []


def test_it_holds_its_own_lease_and_no_other(installed: Server) -> None:
    lease = {"leases.coordination.k8s.io": "get update"}
    assert all(allowed(installed, lease, "r1-system", name="r1-operator").values())
    assert all(allowed(installed, {"leases.coordination.k8s.io": "create"}, "r1-system").values())
    assert not any(allowed(installed, lease, "r1-system", name="another").values())
    assert not any(allowed(installed, lease, "kube-system", name="r1-operator").values())


def test_it_reads_one_secret_its_own(installed: Server) -> None:
    reads = {"secrets": "get"}
    assert all(allowed(installed, reads, "r1-system", name="r1-operator-keys").values())
    assert not any(allowed(installed, reads, "r1-system", name="another").values())
    assert not any(allowed(installed, reads, "default", name="r1-operator-keys").values())
    assert not any(allowed(installed, {"secrets": "list watch patch update delete"}, "r1-system").values())


def test_watch_namespaces_bound_its_rights(server: Server) -> None:
    for name in ("mine", "others"):
        server.kubectl("create", "namespace", name)
    settings = ("--set", "watchNamespaces={mine},crds.install=false,fullnameOverride=bounded")
    server.helm("install", "bounded", str(CHART), "--namespace", "r1-bounded", "--create-namespace", *settings)
    try:
        account = ACCOUNT.replace("r1-system:r1-operator", "r1-bounded:bounded")
        yes = server.run("kubectl", "auth", "can-i", "create", "pods", "-n", "mine", "--as", account)
        no = server.run("kubectl", "auth", "can-i", "create", "pods", "-n", "others", "--as", account)
        secrets = server.run("kubectl", "auth", "can-i", "get", "secrets", "-n", "others", "--as", account)
        # Whose pods take a node's room matters wherever they are.
        pods = server.run("kubectl", "auth", "can-i", "list", "pods", "-n", "others", "--as", account)
        answers = [done.stdout.strip() for done in (yes, no, secrets, pods)]
        assert answers == ["yes", "no", "no", "yes"]
    finally:
        server.helm("uninstall", "bounded", "--namespace", "r1-bounded")


def test_the_api_server_knows_every_field_that_is_rendered(installed: Server) -> None:
    """Helm sends what it renders without asking; strict validation finds what would be dropped in silence."""
    settings = "networkPolicy.enabled=true,tolerations[0].operator=Exists,priorityClassName=system-cluster-critical"
    objects = installed.rendered("--set", settings)
    assert {"NetworkPolicy", "Deployment", "ClusterRole"} <= {obj["kind"] for obj in objects}
    installed.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", objects=objects)


def test_users_of_the_built_in_roles_get_the_resource(installed: Server) -> None:
    roles = json.loads(installed.kubectl("get", "clusterroles", "-o", "json"))["items"]
    labels = {role["metadata"]["name"]: role["metadata"].get("labels", {}) for role in roles}
    assert labels["r1-system-r1-operator-view"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert labels["r1-system-r1-operator-edit"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"


def test_pod_security_restricted_admits_the_operator(server: Server) -> None:
    namespace = {"metadata": {"name": "strict", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    server.kubectl("create", "-f", "-", objects=[{"apiVersion": "v1", "kind": "Namespace"} | namespace])
    template = one(server.rendered(namespace="strict"), "Deployment")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator", "namespace": "strict"}} | {
        "spec": template["spec"]
    }
    server.kubectl("create", "--dry-run=server", "-f", "-", objects=[pod])
    # The check bites: the same pod without one of its promises is refused.
    loose = copy.deepcopy(pod)
    del loose["spec"]["containers"][0]["securityContext"]["capabilities"]
    refused = server.run("kubectl", "create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(loose))
    assert "violates PodSecurity" in refused.stderr


def test_upgrade_renews_the_crd_and_uninstall_leaves_it(server: Server, tmp_path: Path) -> None:
    older = tmp_path / "r1-operator"
    shutil.copytree(CHART, older)
    file = older / "files" / "r1deployments.yaml"
    crd = yaml.safe_load(file.read_text())
    spec = schema_of_spec(crd)
    del spec["properties"]["startup"]
    file.write_text(yaml.safe_dump(crd))
    release = ("cycle", str(older), "--namespace", "r1-cycle")

    server.run("kubectl", "delete", CRD, "--ignore-not-found")
    server.helm("install", *release, "--create-namespace")
    try:
        await_crd(server.kubectl)
        assert "startup" not in schema_of_spec(stored(server))["properties"]
        server.helm("upgrade", "cycle", str(CHART), "--namespace", "r1-cycle", "--set", "replicas=2")
        assert "startup" in schema_of_spec(stored(server))["properties"]
        args = ("-n", "r1-cycle", "-o", "jsonpath={.spec.replicas}")
        assert server.kubectl("get", "deployment", "cycle-r1-operator", *args) == "2"
        server.kubectl("apply", "-f", "-", objects=[merged(GOOD, {"metadata": {"name": "survivor"}})])
    finally:
        server.helm("uninstall", "cycle", "--namespace", "r1-cycle")
    assert server.kubectl("get", "r1d", "survivor", "-o", "name") == "r1deployment.r1operator.dev/survivor\n"
    assert server.kubectl("get", "deployments", "-n", "r1-cycle", "-o", "name") == ""
    # The same release takes over again what it left, another one when it is told to.
    server.helm("install", "cycle", str(CHART), "--namespace", "r1-cycle")
    server.helm("uninstall", "cycle", "--namespace", "r1-cycle")
    another = ("install", "another", str(CHART), "--namespace", "r1-cycle")
    assert "cannot be imported" in server.refusal("helm", *another)
    server.helm(*another, "--take-ownership")
    server.helm("uninstall", "another", "--namespace", "r1-cycle")
    server.kubectl("delete", CRD)


def schema_of_spec(crd: dict[str, Any]) -> dict[str, Any]:
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert isinstance(schema, dict)
    return dict(schema["properties"]["spec"])


def stored(server: Server) -> dict[str, Any]:
    return dict(json.loads(server.kubectl("get", CRD, "-o", "json")))
