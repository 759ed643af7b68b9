"""What a resource and its hardware profile say together of the engine's pods, where no schema can see both. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..api.types import Engine, R1DeploymentSpec
from ..planning import Refusal

_PROFILE = "spec.hardwareProfile"


def refused_pod(spec: R1DeploymentSpec, whole: R1DeploymentSpec, gpus: str) -> Refusal | None:
    """The first thing about the pods that cannot work; None if there is none.

    `whole` is `spec` with what its hardware profile says, `gpus` the resource that counts the GPUs.
    """
    return next(_refusals(spec.engine, whole.engine, gpus), None)


def _refusals(own: Engine, engine: Engine, gpus: str) -> Iterator[Refusal]:
    if gpus in engine.resources.limits:
        at = "spec.engine" if gpus in own.resources.limits else _PROFILE
        yield Refusal(
            f"{at}.resources.limits[{gpus}]",
            "the plan says how many GPUs a pod gets: whole nodes of its hardware profile",
            "remove it; gpusPerNode of the hardware profile is the number",
        )
    volumes = {volume.name for volume in engine.pod_template.spec.volumes}
    for mount in engine.volume_mounts:
        if mount.name not in volumes:
            said = [position for position, mine in enumerate(own.volume_mounts) if mine == mount]
            at = f"spec.engine.volumeMounts[{said[0]}].name" if said else f"{_PROFILE}.volumeMounts"
            yield _no_volume(at, mount.name, volumes)
    for container in engine.pod_template.spec.init_containers:
        at = _place(own, container.name)
        if gpus in {*container.resources.limits, *container.resources.requests}:
            yield Refusal(f"{at}.resources", f"the engine has every GPU of its node ({gpus})", "remove it")
        for number, mount in enumerate(container.volume_mounts):
            if mount.name not in volumes:
                yield _no_volume(f"{at}.volumeMounts[{number}].name", mount.name, volumes)


def _place(own: Engine, name: str) -> str:
    """Where a container of the user's is written."""
    field = "podTemplate.spec.initContainers"
    for position, container in enumerate(own.pod_template.spec.init_containers):
        if container.name == name:
            return f"spec.engine.{field}[{position}]"
    return f"{_PROFILE}.{field}[{name}]"


def _no_volume(at: str, name: str, volumes: set[str]) -> Refusal:
    known = ", ".join(sorted(volumes)) or "none"
    remedy = f"add it to spec.engine.podTemplate.spec.volumes, or mount one of those there are ({known})"
    return Refusal(at, f"there is no volume {name!r}", remedy)
