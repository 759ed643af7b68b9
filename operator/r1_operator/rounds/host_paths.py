"""Which folders of the nodes an R1Deployment may mount. Pure.

Whoever may write an R1Deployment could otherwise read any file of the nodes by it. The site says below which prefixes
its data lies (chart value hostPaths.allowedPrefixes); the schema cannot know. What a symbolic link on a node points to
cannot be seen from here: who makes one below an allowed prefix decides on that node anyway.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator

from ..api.engine import EnginePods
from ..api.types import R1DeploymentSpec
from ..planning import Refusal

DEFAULT_PREFIXES = ("/data", "/mnt", "/models", "/opt/r1", "/raid", "/scratch", "/srv", "/var/cache/r1", "/var/lib/r1")
"""Where data usually lies, and nothing that a node lives by. `/` allows everything."""


def refused_host_path(spec: R1DeploymentSpec, prefixes: Collection[str]) -> Refusal | None:
    """The first folder that lies elsewhere; None if there is none. What the chart's own profiles mount is the site's
    word."""
    for field, path in _host_paths(spec):
        if not _within(path, prefixes):
            why = "has '..' in it" if ".." in path.split("/") else "lies below no prefix that this cluster allows"
            allowed = ", ".join(sorted(prefixes)) or "none"
            remedy = (
                f"mount a folder below one of them ({allowed}), or let whoever runs the operator add a prefix to the "
                "chart's hostPaths.allowedPrefixes"
            )
            return Refusal(field, f"{path} {why}", remedy)
    return None


def _host_paths(spec: R1DeploymentSpec) -> Iterator[tuple[str, str]]:
    if spec.model.weights.host_path is not None:
        yield "spec.model.weights.hostPath.path", spec.model.weights.host_path.path
    said: list[tuple[str, EnginePods]] = [("spec.engine", spec.engine)]
    if spec.hardware_profile is not None:
        said.append(("spec.hardwareProfile", spec.hardware_profile))
    for at, pods in said:
        if pods.cache is not None and pods.cache.host_path is not None:
            yield f"{at}.cache.hostPath.path", pods.cache.host_path.path
        for position, volume in enumerate(pods.pod_template.spec.volumes):
            if volume.host_path is not None:
                yield f"{at}.podTemplate.spec.volumes[{position}].hostPath.path", volume.host_path.path


def _within(path: str, prefixes: Collection[str]) -> bool:
    if not path.startswith("/") or ".." in path.split("/"):
        return False
    parts = _parts(path)
    return any(parts[: len(allowed)] == allowed for allowed in map(_parts, prefixes))


def _parts(path: str) -> list[str]:
    return [part for part in posixpath.normpath(path).split("/") if part]
