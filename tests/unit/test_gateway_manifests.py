"""The gateway's objects."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from r1_operator.api import names
from r1_operator.api.parse import parse
from r1_operator.api.types import R1Deployment
from r1_operator.manifests.context import Context
from r1_operator.manifests.engine_pod import engine_pod
from r1_operator.manifests.engine_secret import engine_secret
from r1_operator.manifests.gateway import gateway_objects
from r1_operator.manifests.keys import Keys
from r1_operator.planning import Plan, make_plan

KEYS = Keys(b"k" * 32)


def context(**gateway: Any) -> Context:
    spec = {
        "model": {"name": "r1-operator/tiny-r1", "servedName": "tiny", "weights": {"hostPath": {"path": "/w"}}},
        "hardware": "CPUx1",
        "drain": {"seconds": 120},
        "gateway": gateway,
    }
    parsed = parse(
        {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": "r1", "namespace": "n"},
            "spec": spec,
        }
    )
    assert isinstance(parsed, R1Deployment), parsed
    plan = make_plan(parsed.spec)
    assert isinstance(plan, Plan), plan
    owner = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "r1", "uid": "u", "controller": True}
    return Context("r1", "n", owner, parsed.spec, plan, engine_image="e", gateway_image="g:1", keys=KEYS)


def rendered(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {obj["kind"]: obj for obj in objects}


def test_a_change_of_workers_restarts_no_pod_and_a_change_of_settings_does() -> None:
    before, after = (
        rendered(gateway_objects(context(), w)) for w in (frozenset(), frozenset({"http://10.0.0.1:30000"}))
    )
    assert before["Deployment"] == after["Deployment"]
    config = json.loads(after["ConfigMap"]["data"][names.GATEWAY_CONFIG_KEY])
    assert config["workers"] == ["http://10.0.0.1:30000"]
    assert config["servedName"] == "tiny"
    later = rendered(gateway_objects(context(), frozenset(), epoch=7))
    assert json.loads(later["ConfigMap"]["data"][names.GATEWAY_CONFIG_KEY])["epoch"] == 7
    assert later["Deployment"] == before["Deployment"]
    longer = context()
    spec = longer.spec.model_copy(update={"drain": longer.spec.drain.model_copy(update={"seconds": 121})})
    changed = Context("r1", "n", longer.owner, spec, longer.plan, "e", "g:1", keys=KEYS)
    template = "spec"
    assert rendered(gateway_objects(changed))["Deployment"][template] != before["Deployment"][template]


def test_one_of_two_pods_may_be_evicted_and_one_alone_is_not_guarded() -> None:
    objects = rendered(gateway_objects(context()))
    assert objects["Deployment"]["spec"]["replicas"] == 2
    budget, deployment = objects["PodDisruptionBudget"], objects["Deployment"]
    assert budget["spec"]["maxUnavailable"] == 1
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert "PodDisruptionBudget" not in rendered(gateway_objects(context(replicas=1)))


def test_users_reach_their_port_alone() -> None:
    objects = rendered(gateway_objects(context(port=80)))
    assert [(p["port"], p["targetPort"]) for p in objects["Service"]["spec"]["ports"]] == [(80, names.PORT_GATEWAY)]


def test_pod_has_time_to_linger_and_to_drain() -> None:
    deployment = rendered(gateway_objects(context()))["Deployment"]
    config = json.loads(rendered(gateway_objects(context()))["ConfigMap"]["data"][names.GATEWAY_CONFIG_KEY])
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > config["lingerSeconds"] + config["drainSeconds"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_api_key_comes_from_its_secret_and_is_asked_for_only_then() -> None:
    def env(**gateway: Any) -> list[dict[str, Any]]:
        pod = rendered(gateway_objects(context(**gateway)))["Deployment"]["spec"]["template"]["spec"]
        return list(pod["containers"][0]["env"])

    assert env() == []
    assert env(apiKeySecret={"name": "keys", "key": "k"}) == [
        {"name": "R1_API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}}
    ]


def test_secret_is_mounted_where_the_gateway_looks() -> None:
    from r1_gateway.settings import API_KEY_VARIABLE, CONFIG_FILE, ENGINE_KEY_FILE

    here = context()
    pod = rendered(gateway_objects(here))["Deployment"]["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    secret = engine_secret(here)
    assert volumes["keys"]["secret"]["secretName"] == secret["metadata"]["name"]
    (item,) = volumes["keys"]["secret"]["items"]
    assert base64.b64decode(secret["data"][item["key"]]).decode() == here.keys.engine(here.uid)
    assert f"{mounts['keys']}/{item['path']}" == str(ENGINE_KEY_FILE)
    assert f"{mounts['config']}/{names.GATEWAY_CONFIG_KEY}" == str(CONFIG_FILE)
    assert names.ENV_GATEWAY_API_KEY == API_KEY_VARIABLE


def test_no_object_but_the_secret_shows_a_token() -> None:
    here = context()
    keys, text = here.keys, json.dumps([*gateway_objects(here), engine_pod(here, 0, 0, 0, "r")])
    assert hashlib.sha256(keys.gateway(here.uid).encode()).hexdigest() in text
    assert not any(token in text for token in (keys.gateway(here.uid), keys.ray(here.uid), keys.engine(here.uid)))
    assert keys.master.hex() not in repr(here)
    assert keys.gateway(here.uid) not in json.dumps(engine_secret(here)), "only the operator holds it"


def test_tokens_are_the_resources_own_and_come_again_from_the_same_master() -> None:
    keys = Keys(b"m" * 32)
    tokens = {make(uid) for uid in ("a", "b") for make in (keys.gateway, keys.ray, keys.engine)}
    assert len(tokens) == 6
    assert Keys(b"m" * 32).engine("a") in tokens
    assert Keys(b"n" * 32).engine("a") not in tokens
    with pytest.raises(ValueError, match="could be guessed"):
        Keys(b"")
