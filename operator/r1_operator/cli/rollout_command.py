"""`r1 rollout status|history|undo|restart|pause|resume NAME`."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ..api import names
from ..api.parse import parse_status
from ..api.reasons import ConditionType, Reason
from ..api.timestamps import rfc3339
from ..api.types import R1DeploymentStatus
from ..cluster import ApiError, Client
from ..cluster.resources import CONFIG_MAPS, R1_DEPLOYMENTS, JsonObject
from ..lifecycle.pods import owned_by
from ..manifests.template import Template, templates_of
from ..rounds.asked import ASKED, asked_of
from .cluster_access import FAILED, Told, deployment, table
from .cluster_access import run as run_in_cluster

_LOOK_SECONDS = 2.0
_NOT_AS_TESTED = 422
"""How the API server answers a JSON Patch whose `test` fails; what it does not take as a spec comes with causes."""
_GIVES_UP = frozenset(
    {Reason.CANARY_ABORTED, Reason.PROGRESS_DEADLINE_EXCEEDED, Reason.INVALID_SPEC, Reason.PLAN_REFUSED}
)


def run(options: argparse.Namespace) -> int:
    """Run one of them. → exit code."""
    found = {
        "status": _status,
        "history": _history,
        "undo": _undo,
        "restart": _restart,
        "pause": _pause,
        "resume": _resume,
    }
    return run_in_cluster(found[options.action], options)


async def _get(client: Client, options: argparse.Namespace) -> tuple[JsonObject, R1DeploymentStatus]:
    obj = await deployment(client, options)
    return obj, parse_status(obj.get("status"))[0]


# --- status ----------------------------------------------------------------------------------------------------------
async def _status(client: Client, options: argparse.Namespace) -> int:
    began, before = time.monotonic(), ""
    while True:
        obj, status = await _get(client, options)
        text, done = stands(obj, status)
        if text != before:
            print(text, flush=True)
        before = text
        if done is not None or options.no_wait:
            return 0 if done or (done is None and options.no_wait) else FAILED
        if options.timeout and time.monotonic() - began >= options.timeout:
            raise Told(f"not through after {options.timeout:g} s")
        await asyncio.sleep(_LOOK_SECONDS)


def stands(obj: JsonObject, status: R1DeploymentStatus) -> tuple[str, bool | None]:
    """How a change stands, in words, and whether it is through (True), given up (False), or neither."""
    name, spec = obj["metadata"]["name"], obj.get("spec") or {}
    if status.observed_generation != obj["metadata"].get("generation"):
        return f"{name}: waits for the operator to see the change", None
    progress = status.condition(ConditionType.PROGRESSING)
    message = progress.message if progress is not None else ""
    total = status.desired_replicas + status.spare_replicas
    count = f"{status.updated_replicas} of {total} replicas run revision {status.update_revision}"
    if progress is not None and progress.reason in {Reason.NEW_REPLICAS_AVAILABLE, Reason.SCALED_TO_ZERO}:
        return f"{name}: {count} and are ready", True
    if progress is not None and progress.reason in _GIVES_UP:
        return f"{name}: {progress.reason}: {message}", False
    if spec.get("paused"):
        return f"{name}: paused; {count}; `r1 rollout resume {name}` goes on", False
    rollout = status.rollout
    trial = "; the canary is on trial" if rollout is not None and rollout.canary == "Running" else ""
    why = f"; {progress.reason}: {message}" if progress is not None and progress.status == "False" else ""
    return f"{name}: {count}{trial}{why}", None


# --- history ---------------------------------------------------------------------------------------------------------
async def _templates(client: Client, obj: JsonObject) -> list[Template]:
    """Kept revisions of one R1Deployment, oldest first."""
    labels = names.selector(names.base_labels(obj["metadata"]["name"], names.COMPONENT_ENGINE))
    listing = await client.list(CONFIG_MAPS, obj["metadata"]["namespace"], labels=labels)
    mine = [item for item in listing.items if owned_by(item, obj["metadata"]["uid"])]
    return sorted(templates_of(mine).values(), key=lambda t: (t.made_at, t.revision))


async def _history(client: Client, options: argparse.Namespace) -> int:
    obj, status = await _get(client, options)
    templates = await _templates(client, obj)
    if not templates:
        raise Told(f"no revision of {options.name} is kept yet; see `kubectl describe r1d {options.name}`")
    rows: list[tuple[str, ...]] = [("REVISION", "MADE", "REPLICAS", "STATE", "IMAGE", "CHANGED")]
    for before, template in zip([None, *templates], templates, strict=False):
        count = sum(r.revision == template.revision and r.stage == "Ready" for r in status.replica_statuses)
        changed = "" if before is None else ", ".join(differences(before, template)) or "the operator's defaults"
        state = _state(template.revision, status)
        rows.append((template.revision, template.made_at, str(count), state, template.image, changed))
    print(table(rows))
    return 0


def _state(revision: str, status: R1DeploymentStatus) -> str:
    rollout = status.rollout
    if rollout is not None and rollout.revision == revision and rollout.canary == "Aborted":
        return "aborted"
    if revision == status.current_revision:
        return "serves"
    return "wanted" if revision == status.update_revision else ""


def differences(before: Template, after: Template) -> list[str]:
    """Fields of the spec that two revisions were asked for with different values."""
    return sorted(set(_fields(before.asked, after.asked)))


def _fields(before: Any, after: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in before.keys() | after.keys():
            yield from _fields(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif before != after:
        yield path


# --- changes ---------------------------------------------------------------------------------------------------------
async def _undo(client: Client, options: argparse.Namespace) -> int:
    obj, status = await _get(client, options)
    templates = await _templates(client, obj)
    target = _target(templates, obj, status, options)
    operations = undo_operations(obj["spec"], target, templates)
    if not operations:
        raise Told(f"the spec is that of revision {target.revision} already")
    try:
        await client.patch_json(R1_DEPLOYMENTS, options.namespace, options.name, [same_spec(obj), *operations])
    except ApiError as error:
        if error.status != _NOT_AS_TESTED or error.details.get("causes"):
            raise
        raise Told(f"the spec of {options.name} was changed by somebody in this moment; try again") from error
    fields = ", ".join(operation["path"].replace("/spec/", "spec.").replace("/", ".") for operation in operations)
    print(f"{options.name}: {fields} as in revision {target.revision}; change it where your manifests are kept, too")
    return 0


def _target(
    templates: list[Template], obj: JsonObject, status: R1DeploymentStatus, options: argparse.Namespace
) -> Template:
    known = {t.revision: t for t in templates if t.asked}
    if options.to_revision is not None:
        if options.to_revision not in known:
            listed = ", ".join(known) or "none"
            raise Told(f"revision {options.to_revision} of {options.name} is not kept; kept are {listed}")
        return known[options.to_revision]
    asked = asked_of(obj["spec"])
    # During a change, or after one that failed: what still serves. Else what came before it.
    if status.current_revision in known and known[status.current_revision].asked != asked:
        return known[status.current_revision]
    earlier = [t for t in known.values() if t.asked != asked]
    if status.current_revision in known:
        earlier = [t for t in earlier if t.made_at <= known[status.current_revision].made_at] or earlier
    if not earlier:
        raise Told(f"no other revision of {options.name} is kept; see `r1 rollout history {options.name}`")
    return max(earlier, key=lambda t: (t.made_at, t.revision))


def same_spec(obj: JsonObject) -> dict[str, Any]:
    """Test of a JSON Patch: that the spec is the one which was looked at. The status may be written all the time."""
    return {"op": "test", "path": "/metadata/generation", "value": obj["metadata"]["generation"]}


def undo_operations(spec: Mapping[str, Any], target: Template, templates: list[Template]) -> list[dict[str, Any]]:
    """JSON Patch that makes a spec ask for a revision again. People's labels stay as they are."""
    asked = json.loads(json.dumps(target.asked))
    labels = (((spec.get("engine") or {}).get("podTemplate") or {}).get("metadata") or {}).get("labels")
    if labels and "engine" in asked:
        asked["engine"].setdefault("podTemplate", {}).setdefault("metadata", {})["labels"] = labels
    newest = max((t for t in templates if t.asked == target.asked), key=lambda t: (t.made_at, t.revision))
    if newest.revision != target.revision:  # the same wish with other defaults: the image says which is meant
        asked.setdefault("engine", {})["image"] = target.image
    operations: list[dict[str, Any]] = []
    for key in ASKED:
        if key in asked and asked[key] != spec.get(key):
            operations.append({"op": "add", "path": f"/spec/{key}", "value": asked[key]})
        elif key not in asked and key in spec:
            operations.append({"op": "remove", "path": f"/spec/{key}"})
    restarted = (target.asked.get("strategy") or {}).get("restartedAt")
    now = (spec.get("strategy") or {}).get("restartedAt")
    if restarted != now and restarted is not None:
        strategy = {**(spec.get("strategy") or {}), "restartedAt": restarted}
        operations.append({"op": "add", "path": "/spec/strategy", "value": strategy})
    elif restarted != now:
        operations.append({"op": "remove", "path": "/spec/strategy/restartedAt"})
    return operations


async def _restart(client: Client, options: argparse.Namespace) -> int:
    await _get(client, options)
    now = rfc3339(time.time())
    await _set(client, options, {"strategy": {"restartedAt": now}})
    print(f"{options.name}: every replica is started anew, one after the other; `r1 rollout status {options.name}`")
    return 0


async def _pause(client: Client, options: argparse.Namespace) -> int:
    return await _set_paused(client, options, True)


async def _resume(client: Client, options: argparse.Namespace) -> int:
    return await _set_paused(client, options, False)


async def _set_paused(client: Client, options: argparse.Namespace, paused: bool) -> int:
    obj, _ = await _get(client, options)
    if bool(obj["spec"].get("paused")) == paused:
        print(f"{options.name}: is {'paused' if paused else 'not paused'} already")
        return 0
    await _set(client, options, {"paused": paused})
    print(f"{options.name}: {'paused; what runs is kept, healed and scaled' if paused else 'goes on'}")
    return 0


async def _set(client: Client, options: argparse.Namespace, spec: Mapping[str, Any]) -> None:
    await client.patch_merge(R1_DEPLOYMENTS, options.namespace, options.name, {"spec": dict(spec)})
