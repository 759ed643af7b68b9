"""Writes: gangs whole or not at all, names that others have, and nothing of anybody else's is touched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from r1_operator.cluster import ApiError
from r1_operator.cluster.resources import JsonObject, Resource, resource_of
from r1_operator.controller.acting import Actor, GangRefused, NameTaken
from r1_operator.controller.memory import LONGEST_WAIT_SECONDS, Memory, is_quota, overdrawn
from r1_operator.lifecycle.actions import CreateGang, Why
from r1_operator.manifests.template import Template
from r1_simulate.cluster import SimulatedCluster, spec_of

UID = "uid-r1"
QUOTA = ApiError(403, "Forbidden", 'pods "x" is forbidden: exceeded quota: compute, requested: pods=1')


class ApiServer:
    """Objects by kind and name; a quota of pods."""

    def __init__(self, pods: int = 99) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.quota, self.applied = pods, 0
        self.broken: ApiError | None = None
        self.fading = 0
        """So many times a name is in the way, and what had it is gone when one looks."""

    def add(self, obj: dict[str, Any]) -> None:
        self.objects[obj["kind"], obj["metadata"]["name"]] = obj

    async def create(self, obj: JsonObject) -> dict[str, Any]:
        key = (obj["kind"], obj["metadata"]["name"])
        if key in self.objects or self.fading:
            raise ApiError(409, "AlreadyExists", "")
        if self.broken is not None and obj["kind"] == "Pod":
            raise self.broken
        if obj["kind"] == "Pod" and sum(kind == "Pod" for kind, _ in self.objects) >= self.quota:
            raise QUOTA
        made: dict[str, Any] = copy.deepcopy(dict(obj))
        made["metadata"]["uid"] = f"uid-{key[1]}"
        self.objects[key] = made
        return made

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        if (resource.kind, name) not in self.objects:
            self.fading -= 1
            raise ApiError(404, "NotFound", f"{resource.plural} {name!r} not found")
        return self.objects[resource.kind, name]

    async def apply(self, obj: JsonObject, *, uid: str) -> dict[str, Any]:
        self.applied += 1
        return dict(obj)

    async def delete(self, resource: Resource, namespace: str, name: str, **_: Any) -> bool:
        return self.objects.pop((resource.kind, name), None) is not None

    def remember(self, obj: JsonObject) -> None:
        resource_of(obj)

    def actor(self) -> Actor:
        return Actor(self, self)  # type: ignore[arg-type]

    def names(self, kind: str) -> list[str]:
        return sorted(name for of, name in self.objects if of == kind)


@pytest.fixture(scope="module")
def template() -> Template:
    round_ = SimulatedCluster(spec_of(nodes=2)).reconcile()
    return next(iter(round_.templates.values()))


def gang(replica: int) -> CreateGang:
    return CreateGang(replica, 0, (0, 1), Why.SCALE_UP)


async def test_of_a_gang_that_a_quota_refuses_in_part_nothing_is_left(template: Template) -> None:
    """C2: about a third of the orders of arrival ended with half of each of two gangs, for ever."""
    api = ApiServer(pods=3)
    await api.actor().create_gang(template, UID, gang(0))
    with pytest.raises(GangRefused) as refused:
        await api.actor().create_gang(template, UID, gang(1))
    assert is_quota(refused.value.error)
    assert api.names("Pod") == ["r1-0-0-0", "r1-0-0-1"]


async def test_a_webhook_that_nobody_answers_refuses_and_is_told(template: Template) -> None:
    """It comes as a server error: three minutes long nothing but "1 of 2 replicas are ready" was told."""
    api = ApiServer()
    words = (
        'Internal error occurred: failed calling webhook "a.example.com": failed to call webhook: connection refused'
    )
    api.broken = ApiError(500, "InternalError", words)
    with pytest.raises(GangRefused, match="failed calling webhook"):
        await api.actor().create_gang(template, UID, gang(0))
    assert api.names("Pod") == []


async def test_what_could_not_be_asked_is_completed_later(template: Template) -> None:
    api = ApiServer()
    api.broken = ApiError(0, "Timeout", "no answer")
    with pytest.raises(ApiError):
        await api.actor().create_gang(template, UID, gang(0))
    api.broken = None
    await api.actor().create_gang(template, UID, gang(0))
    await api.actor().create_gang(template, UID, gang(0))
    assert api.names("Pod") == ["r1-0-0-0", "r1-0-0-1"]


async def test_a_config_map_that_is_left_of_an_earlier_gang_of_that_name_is_not_used(template: Template) -> None:
    """L7: the new pods would start from the old engine.json."""
    api = ApiServer()
    await api.actor().create_gang(template, UID, gang(0))
    for name in api.names("Pod"):
        api.objects.pop(("Pod", name))
    stale = api.objects["ConfigMap", "r1-0-0"]
    stale["data"] = {"engine.json": "{}"}
    await api.actor().create_gang(template, UID, gang(0))
    assert "headAddress" in api.objects["ConfigMap", "r1-0-0"]["data"]["engine.json"]


async def test_a_name_that_became_free_meanwhile_is_taken(template: Template) -> None:
    """A pod of the predecessor in the moment in which it goes: the create meets it, the look that follows does not."""
    api = ApiServer()
    api.fading = 1
    await api.actor().create_gang(template, UID, gang(0))
    assert api.names("Pod") == ["r1-0-0-0", "r1-0-0-1"]
    api.fading = 99
    with pytest.raises(ApiError) as told:  # and not for ever
        await api.actor().create_gang(template, UID, gang(1))
    assert told.value.not_found


async def test_an_object_of_somebody_elses_is_named_and_left_as_it_is() -> None:
    """C6: it was force-applied with our ownerReference, and collected with our resource."""
    api = ApiServer()
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "r1-gateway", "namespace": "ns", "uid": "theirs"},
        "spec": {"selector": {"app": "shop"}},
    }
    api.add(copy.deepcopy(theirs))
    ours = {**theirs, "metadata": {"name": "r1-gateway", "namespace": "ns", "labels": {"a": "b"}}}
    with pytest.raises(NameTaken, match="Service r1-gateway belongs to nobody we know"):
        await api.actor().create_or_apply(ours, UID)
    assert api.objects["Service", "r1-gateway"] == theirs
    assert api.applied == 0


async def test_a_child_of_ours_that_lost_our_label_is_found_again() -> None:
    api = ApiServer()
    owner = {"kind": "R1Deployment", "uid": UID, "controller": True}
    metadata = {"name": "r1-gateway", "namespace": "ns", "uid": "u", "ownerReferences": [owner], "labels": {}}
    api.add({"apiVersion": "v1", "kind": "Service", "metadata": metadata})
    await api.actor().create_or_apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {**metadata, "labels": {"a": "b"}}}, UID
    )
    assert api.applied == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("requested: pods=1, used: pods=2, limited: pods=2", False),
        ("requested: pods=1, used: pods=3, limited: pods=2", True),
        ("requested: memory=1Gi,pods=1, used: memory=2Gi,pods=1, limited: memory=1500Mi,pods=9", True),
        ("requested: memory=1Gi, used: memory=1000Mi, limited: memory=1Gi", False),
        ("in words of another version", True),
    ],
)
def test_a_quota_that_is_overdrawn_is_told_apart_from_one_that_is_full(words: str, expected: bool) -> None:
    """What one gang gives back another may take, unless somebody has lowered the quota below what is used."""
    assert overdrawn(f'pods "x" is forbidden: exceeded quota: compute, {words}') is expected


def test_refusals_wait_longer_and_another_spec_is_tried_at_once() -> None:
    memory, key = Memory(), ("ns", "r1")
    waits = []
    for _ in range(8):
        memory.refused(key, 1, QUOTA, 100.0)
        refusal = memory.refusal(key, 1)
        assert refusal is not None
        assert refusal.quota
        waits.append(refusal.until - 100.0)
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT_SECONDS
    assert memory.refusal(key, 2) is None
    memory.refused(key, 2, ApiError(403, "Forbidden", "policy", retry_after=90.0), 100.0)
    asked = memory.refusal(key, 2)
    assert asked is not None
    assert (asked.until, asked.quota) == (190.0, False)
    memory.created(key)
    assert memory.refusal(key, 2) is None
