"""`r1 preflight`: looks at a cluster as a doctor would, changes nothing, and says what to mend."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..api import names
from ..api.types import Metadata
from ..cluster import ApiError, Client
from ..cluster.resources import (
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    RESOURCE_QUOTAS,
    SECRETS,
    JsonObject,
    Resource,
)
from ..manifests.context import Context
from ..manifests.engine_pod import engine_pod
from ..placement.place import DEFAULT_FABRIC_LABEL
from ..preflight.checks import OPERATOR_SELECTOR, checks
from ..preflight.looked import Checked, Looked
from ..rounds.host_paths import DEFAULT_PREFIXES
from ..rounds.reading import Settings, read_subject
from .cluster_access import FAILED, Told
from .cluster_access import run as run_in_cluster
from .plan_input import InputError, hardware_profiles


def run(options: argparse.Namespace) -> int:
    """Run it. → exit code: 1 if something would keep R1 from serving."""
    return run_in_cluster(_preflight, options)


async def _preflight(client: Client, options: argparse.Namespace) -> int:
    obj = _resource(options)
    options.namespace = str(obj["metadata"]["namespace"])
    found = checks(await _look(client, obj, options.profiles))
    print(told(found))
    return FAILED if any(each.level == "FAIL" for each in found) else 0


def _resource(options: argparse.Namespace) -> dict[str, Any]:
    """The R1Deployment of the file, or the usual one; always with a namespace."""
    if options.file is None:
        weights = {"hostPath": {"path": "/models"}}
        spec = {"model": {"name": "deepseek-ai/DeepSeek-R1-0528", "weights": weights}, "hardware": options.hardware}
        kind = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "preflight"}}
        return _named({**kind, "spec": spec}, options.namespace)
    try:
        documents = [d for d in yaml.safe_load_all(Path(options.file).read_text(encoding="utf-8")) if d]
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise Told(f"-f {options.file}: {' '.join(str(error).split())}") from error
    ours = [d for d in documents if isinstance(d, Mapping) and d.get("kind") == names.KIND]
    if len(ours) != 1:
        raise Told(f"-f {options.file}: holds {len(ours)} resources of kind {names.KIND}; give a file with one")
    return _named(dict(ours[0]), options.namespace)


def _named(obj: dict[str, Any], namespace: str) -> dict[str, Any]:
    metadata = dict(obj.get("metadata") or {})
    where = metadata.get("namespace") or namespace
    return {**obj, "metadata": {"name": "preflight", "uid": "preflight", **metadata, "namespace": where}}


def _settings(profiles: str | None, operators: Sequence[JsonObject]) -> Settings:
    """As the operator of the cluster was started, if there is one."""
    try:
        known = hardware_profiles(profiles)
    except InputError as error:
        raise Told(str(error)) from error
    containers = [c for pod in operators for c in pod["spec"]["containers"]]
    said = dict(word.split("=", 1) for c in containers for word in c.get("args") or () if "=" in word)
    prefixes = said.get("--host-path-prefixes")
    return Settings(
        said.get("--engine-image", "r1-engine"),
        said.get("--gateway-image", "r1-gateway"),
        known,
        said.get("--fabric-label", DEFAULT_FABRIC_LABEL),
        host_path_prefixes=tuple(prefixes.split(",")) if prefixes else DEFAULT_PREFIXES,
    )


class _Eyes:
    """Looks, and notes what it may not look at."""

    def __init__(self, client: Client) -> None:
        self._client, self.refused = client, list[str]()

    async def all(self, resource: Resource, namespace: str | None = None, labels: str | None = None) -> tuple[Any, ...]:
        try:
            return tuple((await self._client.list(resource, namespace, labels=labels)).items)
        except ApiError as error:
            self._note(error)
            return ()

    async def one(self, resource: Resource, namespace: str | None, name: str) -> JsonObject | None:
        try:
            return await self._client.get(resource, namespace, name)
        except ApiError as error:
            if not error.not_found:
                self._note(error)
            return None

    async def rehearse(self, context: Context) -> str:
        """Whether the API server would take a pod of the gang; its words if not."""
        pod = engine_pod(context, 0, 0, 0, "")
        pod["metadata"] = {**pod["metadata"], "ownerReferences": []}
        try:
            await self._client.create(pod, dry_run=True)
        except ApiError as error:
            if error.status == 403 and "cannot create resource" in error.message:
                self._note(error)
                return ""
            return "" if error.already_exists else error.message
        return ""

    def _note(self, error: ApiError) -> None:
        if error.status != 403:
            raise error
        self.refused.append(error.message)


async def _look(client: Client, obj: Mapping[str, Any], profiles: str | None) -> Looked:
    eyes = _Eyes(client)
    operators = await eyes.all(PODS, labels=OPERATOR_SELECTOR)
    settings = _settings(profiles, operators)
    subject = read_subject(obj, settings)
    context, where = subject.context, subject.metadata.namespace
    namespace = await eyes.one(NAMESPACES, None, where)
    secrets, claims, rehearsal = dict[str, bool](), dict[str, JsonObject](), ""
    if context is not None and namespace is not None:
        for name in _secret_names(context):
            seen, before = await eyes.one(SECRETS, where, name), len(eyes.refused)
            secrets |= {name: seen is not None} if len(eyes.refused) == before else {}
        claims = {c["metadata"]["name"]: c for c in await eyes.all(PERSISTENT_VOLUME_CLAIMS, where)}
        rehearsal = await eyes.rehearse(context)
    return Looked(
        subject=subject,
        namespace=namespace,
        crd=await eyes.one(CUSTOM_RESOURCE_DEFINITIONS, None, names.CRD_NAME),
        operators=operators,
        nodes=await eyes.all(NODES),
        pods=tuple(pod for pod in await eyes.all(PODS) if not _is_of(pod, subject.metadata)),
        quotas=await eyes.all(RESOURCE_QUOTAS, where) if namespace is not None else (),
        claims=claims,
        secrets=secrets,
        rehearsal=rehearsal,
        refused=tuple(dict.fromkeys(eyes.refused)),
        fabric_label=settings.fabric_label,
    )


def _is_of(pod: JsonObject, metadata: Metadata) -> bool:
    """Whether it is one of this R1Deployment's, which runs already: what it holds is its own."""
    labels = pod["metadata"].get("labels") or {}
    mine = labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY and labels.get(names.LABEL_INSTANCE) == metadata.name
    return mine and pod["metadata"]["namespace"] == metadata.namespace


def _secret_names(context: Context) -> Sequence[str]:
    spec = context.spec
    pull = [secret.name for secret in spec.engine.pod_template.spec.image_pull_secrets]
    key = [spec.gateway.api_key_secret.name] if spec.gateway.api_key_secret is not None else []
    return [*pull, *key]


def told(found: Sequence[Checked]) -> str:
    """A line for each, the remedy below what is not as it should be, and the sum."""
    width = max(len(each.what) for each in found)
    lines = []
    for each in found:
        lines.append(f"{each.level:<4}  {each.what:<{width}}  {each.found}")
        if each.remedy and each.level != "ok":
            lines.append(f"      {'':<{width}}  → {each.remedy}")
    bad, odd = (sum(each.level == level for each in found) for level in ("FAIL", "warn"))
    lines.append(f"\n{bad} to mend before R1 can serve, {odd} to look at" if bad or odd else "\nnothing to mend")
    return "\n".join(lines)
