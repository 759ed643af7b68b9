"""The objects beside the gangs: which are to be made or changed in this round, and which names are somebody else's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..api import names
from ..api.reasons import Reason
from ..lifecycle.pods import owned_by
from ..manifests.context import Context
from ..manifests.differs import differs
from ..manifests.engine_budget import engine_budget
from ..manifests.engine_secret import engine_secret
from ..manifests.engine_service import engine_service
from ..manifests.gateway import gateway_objects
from ..manifests.network_policy import network_policies
from ..manifests.template import Template, loose_of, renewed_limits, template_config_map
from ..status.observation import Finding
from .facts import Child, Facts

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Children:
    """`create`: absent, so far as the cache knows. `apply`: ours, but not as they should be. `secrets`: to be there,
    which no cache shows. `remove`: ours, and not wanted any more. `taken`: names that belong to somebody else → whose
    they are."""

    create: tuple[Json, ...] = ()
    apply: tuple[Json, ...] = ()
    secrets: tuple[Json, ...] = ()
    remove: tuple[Json, ...] = ()
    taken: Mapping[Child, str] = field(default_factory=dict)


def taken_names(facts: Facts) -> dict[Child, str]:
    """Names of ours that belong to somebody else, and to whom, as far as is known before anything is written."""
    uid = facts.subject.metadata.uid
    by_others = {child: owner_words(live) for child, live in facts.live.items() if not owned_by(live, uid)}
    return dict(facts.taken) | {child: whose for child, whose in by_others.items() if child in _names(facts.name)}


def _names(name: str) -> set[Child]:
    gateway = names.gateway_name(name)
    mine = {(kind, gateway) for kind in ("Service", "ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget")}
    return mine | {(kind, names.engine_service(name)) for kind in ("Service", "NetworkPolicy", "PodDisruptionBudget")}


def gangs_may_start(name: str, taken: Mapping[Child, str]) -> bool:
    """A gang of the R1Deployment `name` needs its Service to find its head."""
    return ("Service", names.engine_service(name)) not in taken


def children(
    facts: Facts,
    taken: Mapping[Child, str],
    template: Template | None,
    workers: frozenset[str],
    min_available: int,
    served: str,
) -> Children:
    """What to do about the children. One whose name is taken is left alone, and so is what would use it.

    `template`: of the wanted revision, to be kept; `served`: the model's name for clients; `min_available`: engine pods
    that evictions must leave.
    """
    context = facts.subject.context
    if context is None:
        return Children()
    around = [engine_budget(context, min_available), *gateway_objects(context, workers, facts.epoch, served)]
    kept = [template_config_map(context, template)] if template is not None else []
    wanted = [*_policies(facts, context), engine_service(context), *kept, *around]
    free = [obj for obj in wanted if child_of(obj) not in taken and not _uses(obj, taken)]
    create = [obj for obj in free if child_of(obj) not in facts.live]
    # What is immutable stays as it was written: a template of another version of the operator among them.
    there = [obj for obj in free if child_of(obj) in facts.live and not obj.get("immutable")]
    apply = [obj for obj in there if differs(obj, facts.live[child_of(obj)])] + _limits(facts)
    remove = [] if facts.settings.reach is not None else _live_policies(facts)
    return Children(tuple(create), tuple(apply), (engine_secret(context),), tuple(remove), taken)


def _policies(facts: Facts, context: Context) -> list[dict[str, Any]]:
    return [] if facts.settings.reach is None else network_policies(context, facts.settings.reach)


def _live_policies(facts: Facts) -> list[Json]:
    """Ours, of a time when the operator was to make some."""
    uid = facts.subject.metadata.uid
    return [obj for (kind, _), obj in facts.live.items() if kind == "NetworkPolicy" and owned_by(obj, uid)]


def _limits(facts: Facts) -> list[dict[str, Any]]:
    """Parts of the gangs' ConfigMaps that carry limits of time of another moment."""
    if facts.subject.spec is None:
        return []
    loose, uid = loose_of(facts.subject.spec), facts.subject.metadata.uid
    gangs = {("ConfigMap", names.engine_config_map(facts.name, g.replica, g.attempt)) for g in facts.gangs}
    maps = [facts.live[child] for child in sorted(gangs & facts.live.keys()) if owned_by(facts.live[child], uid)]
    return [renewed for obj in maps if (renewed := renewed_limits(obj, loose)) is not None]


def _uses(obj: Json, taken: Iterable[Child]) -> bool:
    """A gateway must not run with somebody else's settings."""
    if obj["kind"] != "Deployment":
        return False
    return ("ConfigMap", obj["metadata"]["name"]) in set(taken)


def child_of(obj: Json) -> Child:
    return str(obj["kind"]), str(obj["metadata"]["name"])


def owner_words(live: Json) -> str:
    """Whose an object is, in words."""
    owners = live["metadata"].get("ownerReferences") or ()
    controller = next((o for o in owners if o.get("controller")), None)
    return f"{controller['kind']} {controller['name']}" if controller else "nobody we know: it has no owner"


def name_taken(taken: Mapping[Child, str]) -> Finding | None:
    """What is in the way, and what to do about it."""
    if not taken:
        return None
    (kind, name), whose = min(taken.items())
    more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
    message = (
        f"{kind} {name} exists and belongs to {whose}; it is left alone, and what needs it waits. Rename or delete it, "
        f"or give this R1Deployment another name{more}"
    )
    return Finding("False", Reason.NAME_TAKEN, message)
