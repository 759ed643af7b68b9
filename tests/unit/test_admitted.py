"""What admission made of a pod is told: what harms, what was only added, and nothing where nothing was changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from r1_operator.api.types import R1DeploymentStatus
from r1_operator.controller.admissions import Admissions
from r1_operator.lifecycle.gangs import GangState
from r1_operator.manifests.template import gang_pod, template_of
from r1_operator.rounds.admitted import changed_in_admission
from r1_operator.rounds.reading import read_subject
from r1_operator.status.derive import derive
from r1_operator.status.observation import Change
from r1_operator.status.transitions import events

from tests.chart.pod_cases import EVERYTHING
from tests.unit.status_rounds import NOW, condition, message, observed, view
from tests.unit.test_pod_template import context, settings

Pod = dict[str, Any]
Edit = Callable[[Pod, Pod], object]


def admitted(spec: Pod) -> Pod:
    """As the API server returns it, with what it fills in."""
    live = copy.deepcopy(spec)
    live |= {"schedulerName": "default-scheduler", "serviceAccountName": live.get("serviceAccountName", "default")}
    live["tolerations"] = [*live["tolerations"], {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]
    live.setdefault("dnsPolicy", "ClusterFirst")
    del live["schedulingGates"]
    for volume in live["volumes"]:
        if "configMap" in volume:
            volume["configMap"]["defaultMode"] = 420
        if volume.get("emptyDir", {}).get("sizeLimit") == "1024Mi":
            volume["emptyDir"]["sizeLimit"] = "1Gi"
        if "hostPath" in volume:
            volume["hostPath"].setdefault("type", "")
    (engine,) = live["containers"]
    engine |= {"terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}
    engine["env"] = [{k: v for k, v in variable.items() if v != ""} for variable in engine["env"]]
    for mount in engine["volumeMounts"]:
        if not mount.get("readOnly"):
            mount.pop("readOnly", None)
    return live


def test_what_the_api_server_fills_in_is_no_change() -> None:
    obj = EVERYTHING | {"metadata": {**EVERYTHING["metadata"], "uid": "u", "generation": 1}}
    site = replace(settings(), host_path_prefixes=("/",))
    whole = read_subject(obj, site).context
    empty = context(engine={"env": [{"name": "EMPTY", "value": ""}], "resources": {"sharedMemory": "1024Mi"}})
    for given in (context(), empty, whole):
        assert given is not None
        template = template_of(given)
        for node in (0, 1):
            live = admitted(gang_pod(template, 3, 2, node)["spec"])
            requests = live["containers"][0]["resources"]["requests"]
            requests["memory"] = {"64Gi": "65536Mi", "512Gi": "524288Mi"}[requests["memory"]]
            assert changed_in_admission(template.pod["spec"], live) == ()


def volume(pod: Pod, name: str) -> dict[str, Any]:
    return next(each for each in pod["volumes"] if each["name"] == name)


def limits(**amounts: str) -> Edit:
    return lambda _, engine: engine["resources"]["limits"].update(amounts)


@pytest.mark.parametrize(
    ("edit", "harms", "words"),
    [
        (limits(memory="4Gi"), True, "limits.memory of the engine is 4Gi, not absent; a LimitRange"),
        (limits(memory="4Gi"), True, "set spec.engine.resources.memory"),
        (limits(cpu="2"), True, "limits.cpu of the engine is 2, not 90"),
        (lambda _, e: e["resources"]["limits"].pop("rdma/ib"), True, "limits.rdma/ib of the engine is gone, not 1"),
        (lambda _, e: e["resources"]["requests"].update(memory="1Gi"), False, "requests.memory of the engine is 1Gi"),
        (lambda _, e: e.update(image="mirror.example/engine:1"), False, "image is mirror.example/engine:1"),
        (
            lambda _, e: e.update(command=["/wrapped", "python"]),
            True,
            "command of the engine is ['/wrapped', 'python']",
        ),
        (lambda _, e: e["env"].remove(next(v for v in e["env"] if v["name"] == "SITE")), True, "variable SITE"),
        (lambda _, e: e["volumeMounts"].pop(0), True, "the mount at /models was changed"),
        (lambda _, e: e["securityContext"].update(capabilities={"drop": ["ALL"]}), True, "securityContext"),
        (lambda p, _: p.update(restartPolicy="Always"), True, "restartPolicy is Always, not Never"),
        (lambda p, _: p.update(terminationGracePeriodSeconds=30), True, "a drain cuts requests"),
        (lambda p, _: p["volumes"].remove(next(v for v in p["volumes"] if v["name"] == "shm")), True, "volume shm"),
        (lambda p, _: volume(p, "shm")["emptyDir"].update(sizeLimit="64Mi"), True, "volume shm was changed"),
        (lambda p, _: volume(p, "models").update(hostPath={"path": "/other"}), True, "volume models was changed"),
        (lambda p, _: p["tolerations"].pop(0), True, "the toleration of nvidia.com/gpu is gone"),
        (lambda p, _: p.update(nodeSelector={"pool": "x"}), True, "nodeSelector[pool] is x, not absent"),
        (lambda p, _: p["containers"].append({"name": "mesh"}), False, "container mesh was added"),
        (lambda p, _: p.update(initContainers=[{"name": "init"}]), False, "init container init was added"),
        (lambda p, e: p["containers"].remove(e), True, "there is no container engine"),
    ],
)
def test_each_change_is_told_with_its_remedy_and_whether_it_harms(edit: Edit, harms: bool, words: str) -> None:
    asked = template_of(context()).pod["spec"]
    live = admitted(asked)
    edit(live, live["containers"][0])
    changes = changed_in_admission(asked, live)
    (change,) = changes
    assert change.harms is harms
    assert words in str(change)
    assert "; " in str(change)


def test_an_amount_that_nobody_can_read_is_compared_as_it_stands() -> None:
    asked = template_of(context()).pod["spec"]
    live = admitted(asked)
    live["containers"][0]["resources"]["requests"]["memory"] = "?"
    assert [change.what for change in changed_in_admission(asked, live)] == [
        "requests.memory of the engine is ?, not 64Gi"
    ]


def test_a_pod_is_compared_once_and_again_when_it_is_another() -> None:
    template = template_of(context())
    seen: list[object] = []

    def compare(asked: Any, live: Any) -> tuple[Change, ...]:
        seen.append(live)
        return changed_in_admission(asked, live)

    def pod(uid: str, **status: str) -> Pod:
        made = gang_pod(template, 0, 0, 0)
        return made | {"metadata": made["metadata"] | {"uid": uid}, "spec": admitted(made["spec"]), "status": status}

    admissions, templates, key = Admissions(compare), {template.revision: template}, ("default", "r1")
    for _ in range(3):
        assert admissions.changes(key, [pod("a"), pod("over", phase="Failed")], templates) == {}
    assert len(seen) == 1
    resized = pod("a")
    limits(memory="4Gi")(resized["spec"], resized["spec"]["containers"][0])
    assert list(admissions.changes(key, [resized], templates)) == ["r1-0-0-0"]
    assert len(seen) == 2
    assert list(admissions.changes(key, [resized], templates)) == ["r1-0-0-0"], "what is known is told in every round"
    assert admissions.changes(key, [pod("b")], templates) == {}
    assert admissions.changes(key, [resized], {}) == {}, "of another version's revision nothing is known"
    assert len(seen) == 3


ADDED = Change(False, "container mesh was added", "nothing, if it is meant to be there")
LIMITED = Change(True, "limits.cpu of the engine is 2, not absent", "set spec.engine.resources.cpu")


def test_an_addition_is_told_quietly_and_what_harms_loudly_and_once() -> None:
    empty, ready = R1DeploymentStatus(), view(GangState.READY)
    plain = derive(empty, observed(ready), NOW)
    assert plain.condition("PodsAsAsked") is None
    quiet = derive(plain, observed(ready, changed={"r1-0-0-0": (ADDED,)}), NOW)
    assert condition(quiet, "PodsAsAsked") == ("False", "ChangedInAdmission")
    assert condition(quiet, "Degraded") == ("False", "AsExpected")
    assert events(plain, quiet) == ()
    both = {"r1-0-0-0": (ADDED,), "r1-0-0-1": (LIMITED, ADDED)}
    loud = derive(quiet, observed(ready, changed=both), NOW)
    assert condition(loud, "Degraded") == ("True", "ChangedInAdmission")
    assert condition(loud, "Ready") == ("True", "Ready")
    assert message(loud, "Degraded") == f"r1-0-0-1 was changed in admission: {LIMITED}"
    assert message(loud, "PodsAsAsked").startswith(f"r1-0-0-1 (and 1 more) was changed in admission: {LIMITED}. ")
    assert [event.reason for event in events(quiet, loud)] == ["ChangedInAdmission"]
    assert derive(loud, observed(ready), NOW).condition("PodsAsAsked") is None
