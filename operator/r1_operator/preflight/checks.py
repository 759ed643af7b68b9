"""The checks of `r1 preflight`, in the order in which things have to be mended. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..api import names
from ..api.crd import custom_resource_definition
from ..placement.quantity import parse_quantity
from ..rounds.weights import check_weights
from .looked import Checked, Json, Level, Looked
from .nodes import node_checks


def checks(looked: Looked) -> tuple[Checked, ...]:
    """Everything that is found, good and bad."""
    found = [*_permissions(looked), *_operator(looked), _spec(looked)]
    if looked.subject.context is not None:
        found += [*node_checks(looked), *_namespace(looked), *_volumes(looked), *_secrets(looked)]
    return tuple(found)


def _permissions(looked: Looked) -> Iterator[Checked]:
    for refused in looked.refused:
        yield Checked("permissions", "warn", refused, "ask somebody who may, or let them run this command")


def _operator(looked: Looked) -> Iterator[Checked]:
    helm = "helm install r1 charts/r1-operator --namespace r1-system --create-namespace"
    if looked.crd is None:
        yield Checked("operator", "FAIL", f"the resource {names.CRD_NAME} is not known to this cluster", helm)
        return
    lacking = sorted(_fields(_own_schema()) - _fields(_schema(looked.crd)))
    if lacking:
        text = f"the CRD of the cluster is of another version: it lacks spec.{', spec.'.join(lacking[:3])}"
        yield Checked(
            "operator", "warn", text, "kubectl apply --server-side -f charts/r1-operator/files/r1deployments.yaml"
        )
    ready = [pod for pod in looked.operators if _is_ready(pod)]
    if ready:
        yield Checked("operator", "ok", f"{len(ready)} of {len(looked.operators)} pods are ready")
    elif looked.operators:
        yield Checked(
            "operator",
            "FAIL",
            f"none of {len(looked.operators)} pods is ready",
            f"kubectl -n {looked.operators[0]['metadata']['namespace']} describe pods -l {OPERATOR_SELECTOR}",
        )
    else:
        yield Checked("operator", "FAIL", "no pod of it runs", helm)


OPERATOR_SELECTOR = "app.kubernetes.io/name=r1-operator"


def _own_schema() -> Json:
    return _schema(custom_resource_definition())


def _schema(crd: Json) -> Json:
    versions = crd["spec"]["versions"]
    return next((dict(v["schema"]["openAPIV3Schema"]) for v in versions if v["name"] == names.VERSION), {})


def _fields(schema: Json, path: str = "", depth: int = 2) -> frozenset[str]:
    """Fields of the spec, two levels deep."""
    spec: Mapping[str, Any] = schema if path else (schema.get("properties") or {}).get("spec") or {}
    found: set[str] = set()
    for name, prop in (spec.get("properties") or {}).items():
        found.add(f"{path}{name}")
        if depth > 1:
            found |= _fields(prop, f"{path}{name}.", depth - 1)
    return frozenset(found)


def _is_ready(pod: Json) -> bool:
    return any(
        c["type"] == "Ready" and c["status"] == "True" for c in (pod.get("status") or {}).get("conditions") or ()
    )


def _spec(looked: Looked) -> Checked:
    valid = looked.subject.valid
    if valid.status == "False":
        return Checked("plan", "FAIL", valid.message, "correct the field; `r1 plan -f FILE` shows what else would do")
    return Checked("plan", "ok", valid.message)


def _namespace(looked: Looked) -> Iterator[Checked]:
    context, name = looked.subject.context, looked.subject.metadata.namespace
    assert context is not None
    if looked.namespace is None:
        yield Checked("namespace", "FAIL", f"there is no namespace {name}", f"kubectl create namespace {name}")
        return
    if looked.rehearsal:
        yield Checked("admission", "FAIL", f"a pod of the gang would be refused: {looked.rehearsal}", _remedy(looked))
    else:
        yield Checked("admission", "ok", f"namespace {name} takes the gang's pods (a dry run of one)")
    yield from _quota(looked)


def _remedy(looked: Looked) -> str:
    words, name = looked.rehearsal, looked.subject.metadata.namespace
    if "PodSecurity" in words:
        return (
            f"kubectl label namespace {name} pod-security.kubernetes.io/enforce=privileged --overwrite: pods of a gang "
            "pin memory (IPC_LOCK), and folders of nodes are hostPath volumes"
        )
    if "exceeded quota" in words:
        return f"raise the ResourceQuota of namespace {name}"
    if "serviceaccount" in words or "priority class" in words.lower() or "PriorityClass" in words:
        return "make what spec.engine.podTemplate.spec names, or name another"
    return "mend what the API server's words name"


def _quota(looked: Looked) -> Iterator[Checked]:
    """Of all replicas: a dry run is of one pod alone."""
    context = looked.subject.context
    assert context is not None
    spec, plan = context.spec, context.plan
    replicas = spec.most_replicas
    wanted = {f"requests.{plan.resource_name}": replicas * plan.nodes_per_replica * plan.gpus_per_node}
    wanted |= {"pods": replicas * plan.nodes_per_replica + 2}
    for quota in looked.quotas:
        status = quota.get("status") or {}
        for resource, amount in wanted.items():
            hard = (status.get("hard") or {}).get(resource)
            used = (status.get("used") or {}).get(resource, "0")
            if hard is not None and parse_quantity(hard) - parse_quantity(used) < amount:
                text = f"{resource}: {amount} are needed for {replicas} replicas, {used} of {hard} are in use"
                raise_ = f"raise it in ResourceQuota {quota['metadata']['name']}, or lower replicas"
                yield Checked("quota", "FAIL", text, raise_)


def _volumes(looked: Looked) -> Iterator[Checked]:
    context = looked.subject.context
    assert context is not None
    spec, where = context.spec, looked.subject.metadata.namespace
    weights = spec.model.weights
    claim = weights.persistent_volume_claim
    found = check_weights(
        weights,
        looked.claims.get(claim.claim_name) if claim is not None else None,
        where,
        context.plan.nodes_per_replica,
        spec.most_replicas,
    )
    level: Level = "FAIL" if found.status == "False" else "ok"
    yield Checked("weights", level, found.message, "as it says" if level == "FAIL" else "")
    cache = spec.engine.cache
    kept = cache.persistent_volume_claim.claim_name if cache is not None and cache.persistent_volume_claim else None
    if kept is not None and kept not in looked.claims:
        text = f"spec.engine.cache: there is no PersistentVolumeClaim {kept} in namespace {where}"
        yield Checked("cache", "FAIL", text, "create it with ReadWriteMany, or keep kernels on the nodes (hostPath)")


def _secrets(looked: Looked) -> Iterator[Checked]:
    where = looked.subject.metadata.namespace
    for name, there in looked.secrets.items():
        if not there:
            text = f"there is no Secret {name} in namespace {where}"
            yield Checked("secrets", "FAIL", text, "create it: pods that name it wait for it")
