"""What became of an engine pod in admission: webhooks, LimitRanges and quotas change pods, or add to them. Pure.

Only what the operator asked for, or relies on, is compared; what the API server fills in by itself is no change.
Nothing is done about a change: it is told, with the field to write and the remedy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..api import names
from ..manifests.differs import differs
from ..placement.quantity import parse_quantity
from ..status.observation import Change

Json = Mapping[str, Any]

_EXEMPT = "or take this namespace out of the rules of the webhook that did it"
_COMPARED = ("restartPolicy", "hostNetwork", "dnsPolicy", "subdomain", "runtimeClassName", "serviceAccountName")
_FIELDS = {"memory": "spec.engine.resources.memory", "cpu": "spec.engine.resources.cpu"}


def changed_in_admission(asked: Json, live: Json) -> tuple[Change, ...]:
    """Compares the `spec` of a pod as it was rendered (of any member of its gang) with that of the pod there is."""
    found = {c["name"]: c for c in live.get("containers") or ()}
    engine = found.get(names.CONTAINER_ENGINE)
    if engine is None:
        return (Change(True, f"there is no container {names.CONTAINER_ENGINE}", f"leave it in, {_EXEMPT}"),)
    (wanted,) = (c for c in asked["containers"] if c["name"] == names.CONTAINER_ENGINE)
    changes = (
        *_resources(wanted.get("resources") or {}, engine.get("resources") or {}),
        *_container(wanted, engine),
        *_pod(asked, live),
        *_added(asked, live),
    )
    return tuple(sorted(changes, key=lambda change: (not change.harms, change.what)))


def _resources(asked: Json, live: Json) -> Iterator[Change]:
    for kind in ("limits", "requests"):
        wanted, found = asked.get(kind) or {}, live.get(kind) or {}
        for resource in sorted({*wanted, *found}):
            before, after = wanted.get(resource), found.get(resource)
            if before is None and kind == "requests" and after == (live.get("limits") or {}).get(resource):
                continue  # the API server's own: what is limited and not requested is requested
            if _same_amount(before, after):
                continue
            what = f"{kind}.{resource} of the engine is {after or 'gone'}, not {before or 'absent'}"
            yield Change(_resource_harms(kind, resource), what, _resource_remedy(resource))


def _same_amount(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    try:
        return parse_quantity(one) == parse_quantity(other)
    except ValueError:  # a form that only the API server knows
        return bool(one == other)


def _resource_harms(kind: str, resource: str) -> bool:
    """A limit throttles SGLang or kills its load, a device that is not there is missed; requests only choose nodes."""
    return kind == "limits" or "/" in resource


def _resource_remedy(resource: str) -> str:
    field = _FIELDS.get(resource, f"spec.engine.resources.limits[{resource}]")
    return f"a LimitRange of the namespace or a webhook did it: set {field}, or change the LimitRange or the webhook"


def _container(asked: Json, live: Json) -> Iterator[Change]:
    if live.get("image") != asked["image"]:
        yield Change(False, f"the engine's image is {live.get('image')}", "nothing, if that is the same image")
    for field in ("command", "args"):
        if list(live.get(field) or ()) != list(asked.get(field) or ()):
            yield Change(True, f"{field} of the engine is {live.get(field)}", f"leave it alone, {_EXEMPT}")
    found = {variable["name"]: variable for variable in live.get("env") or ()}
    for variable in asked.get("env") or ():
        name = variable["name"]
        if name != names.ENV_NODE_INDEX and _differs(variable, found.get(name)):
            yield Change(True, f"variable {name} of the engine was changed", f"set it in spec.engine.env, {_EXEMPT}")
    mounts = {mount["mountPath"]: mount for mount in live.get("volumeMounts") or ()}
    for mount in asked.get("volumeMounts") or ():
        if _differs(mount, mounts.get(mount["mountPath"])):
            yield Change(True, f"the mount at {mount['mountPath']} was changed", f"leave it alone, {_EXEMPT}")
    if differs(asked.get("securityContext") or {}, live.get("securityContext") or {}):
        yield Change(True, "securityContext of the engine was changed", f"see spec.engine.securityContext, {_EXEMPT}")


def _pod(asked: Json, live: Json) -> Iterator[Change]:
    for field in _COMPARED:
        if field in asked and live.get(field) != asked[field]:
            yield Change(True, f"{field} is {live.get(field)}, not {asked[field]}", f"leave it alone, {_EXEMPT}")
    grace = "terminationGracePeriodSeconds"
    if int(live.get(grace) or 0) < int(asked[grace]):
        what = f"{grace} is {live.get(grace)}, not {asked[grace]}: a drain cuts requests"
        yield Change(True, what, f"lower spec.drain.seconds, {_EXEMPT}")
    found = {volume["name"]: volume for volume in live.get("volumes") or ()}
    for volume in asked.get("volumes") or ():
        name = volume["name"]
        if name == "config":  # each gang has its own
            volume = {"name": name}
        if _differs(_without_size(volume), found.get(name)) or not _same_amount(_size(volume), _size(found.get(name))):
            yield Change(True, f"volume {name} was changed", f"leave it alone, {_EXEMPT}")
    for toleration in asked.get("tolerations") or ():
        if not any(not differs(toleration, other) for other in live.get("tolerations") or ()):
            what = f"the toleration of {toleration.get('key', 'every taint')} is gone"
            yield Change(True, what, f"leave it alone, {_EXEMPT}")
    yield from _selector(asked.get("nodeSelector") or {}, live.get("nodeSelector") or {})


def _size(volume: Json | None) -> Any:
    return ((volume or {}).get("emptyDir") or {}).get("sizeLimit")


def _without_size(volume: Json) -> Json:
    """The API server writes 1024Mi as 1Gi."""
    if _size(volume) is None:
        return volume
    return {**volume, "emptyDir": {key: value for key, value in volume["emptyDir"].items() if key != "sizeLimit"}}


def _selector(asked: Json, live: Json) -> Iterator[Change]:
    """Placement chooses nodes by what was asked: a pod that wants another one never comes to its node."""
    for label in sorted({*asked, *live}):
        if asked.get(label) != live.get(label):
            what = f"nodeSelector[{label}] is {live.get(label, 'gone')}, not {asked.get(label, 'absent')}"
            yield Change(True, what, "say it in spec.engine.podTemplate.spec.nodeSelector, where placement sees it")


def _added(asked: Json, live: Json) -> Iterator[Change]:
    for field, kind in (("containers", "container"), ("initContainers", "init container")):
        known = {container["name"] for container in asked.get(field) or ()}
        present = [container["name"] for container in live.get(field) or ()]
        for name in present:
            if name not in known:
                yield Change(False, f"{kind} {name} was added", "nothing, if it is meant to be there")
        for name in sorted(known - set(present)):
            yield Change(True, f"{kind} {name} is gone", f"leave it in, {_EXEMPT}")


def _differs(asked: Json, live: Json | None) -> bool:
    """As `differs`; an empty text and an empty list are nothing, as for the API server."""
    return differs({key: value for key, value in asked.items() if not _empty(value)}, live)


def _empty(value: Any) -> bool:
    return value is False or (isinstance(value, str | Sequence) and not value)
