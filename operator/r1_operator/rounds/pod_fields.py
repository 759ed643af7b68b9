"""What a resource and its hardware profile say together of the engine's pods, where no schema can see both. Pure."""

from __future__ import annotations

from ..api.types import R1DeploymentSpec
from ..planning import Refusal


def refused_pod(spec: R1DeploymentSpec, whole: R1DeploymentSpec, gpus: str) -> Refusal | None:
    """The first thing about the pods that cannot work; None if there is none.

    `whole` is `spec` with what its hardware profile says, `gpus` the resource that counts the GPUs.
    """
    engine = whole.engine
    if gpus in engine.resources.limits:
        at = "spec.engine" if gpus in spec.engine.resources.limits else "spec.hardwareProfile"
        return Refusal(
            f"{at}.resources.limits[{gpus}]",
            "the plan says how many GPUs a pod gets: whole nodes of its hardware profile",
            "remove it; gpusPerNode of the hardware profile is the number",
        )
    volumes = {volume.name for volume in engine.pod_template.spec.volumes}
    for mount in engine.volume_mounts:
        if mount.name not in volumes:
            own = [position for position, said in enumerate(spec.engine.volume_mounts) if said == mount]
            at = f"spec.engine.volumeMounts[{own[0]}].name" if own else "spec.hardwareProfile.volumeMounts"
            known = ", ".join(sorted(volumes)) or "none"
            remedy = f"add it to spec.engine.podTemplate.spec.volumes, or mount one of those there are ({known})"
            return Refusal(at, f"there is no volume {mount.name!r}", remedy)
    return None
