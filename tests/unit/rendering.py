"""What ours renders for an example: pods, objects, and what the engine makes of them on a node with RDMA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from r1_engine import launch
from r1_engine.config import EngineConfig, Pod, Settings
from r1_engine.fabric import Fabric
from r1_operator.manifests.context import Context
from r1_operator.manifests.engine_config import engine_config
from r1_operator.manifests.engine_pod import engine_pod
from r1_operator.manifests.gateway import gateway_objects
from r1_operator.planning import built_in_profiles
from r1_operator.rounds import reading

EXAMPLES = Path(__file__).parents[2] / "examples"
OPERATOR = reading.Settings("engine:1", "gateway:1", built_in_profiles(), "fabric")


@dataclass(frozen=True)
class Rendered:
    """`pod`: of node 0. `told`: engine.json. `gateway`: its pods; `service`: its Service."""

    pod: dict[str, Any]
    told: dict[str, Any]
    gateway: dict[str, Any]
    service: dict[str, Any]

    def launched(self, fabric: Fabric) -> tuple[list[str], dict[str, str]]:
        """The arguments and the environment that node 0's SGLang is started with where the pod finds this fabric."""
        pod = Pod(name="r1-0-0-0", ip="10.0.0.7", node_name="gpu-7", index=0)
        settings = Settings(config=EngineConfig.model_validate(self.told), pod=pod, token="secret")
        users = {v["name"]: v["value"] for v in self.pod["spec"]["containers"][0]["env"] if "value" in v}
        return launch.command(settings, "10.0.0.7"), launch.environment(users, settings, (0, 1), "eth0", fabric)


def render(example: str, **engine: Any) -> Rendered:
    """The example of this name, with these fields of spec.engine changed."""
    return rendered(yaml.safe_load((EXAMPLES / f"{example}.yaml").read_text()), engine=engine)


def rendered(obj: dict[str, Any], *, engine: dict[str, Any]) -> Rendered:
    """A resource as the operator reads, plans and renders it; fails with the operator's words if it is refused."""
    return _of(context_of(obj, engine=engine))


def context_of(obj: dict[str, Any], *, engine: dict[str, Any]) -> Context:
    """What it is rendered from, with these fields of spec.engine changed."""
    obj["metadata"] |= {"namespace": "ns", "uid": "u", "generation": 1}
    obj["spec"]["engine"] = {**obj["spec"].get("engine", {}), **engine}
    subject = reading.read_subject(obj, OPERATOR)
    assert subject.context is not None, subject.valid
    assert not subject.unknown, subject.unknown
    return subject.context


def _of(context: Context) -> Rendered:
    objects = {thing["kind"]: thing for thing in gateway_objects(context)}
    return Rendered(
        pod=engine_pod(context, 0, 0, 0, "rev"),
        told=engine_config(context, 0, 0),
        gateway=objects["Deployment"]["spec"]["template"],
        service=objects["Service"],
    )
