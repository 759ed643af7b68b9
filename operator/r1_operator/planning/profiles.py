"""Hardware profiles as users write them → as planning and the pods need them: whole, whatever they extend. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from r1_operator.api.engine import Engine, EnginePods
from r1_operator.api.hardware import HardwareProfile, NodeLabel
from r1_operator.api.overlay import overlay

from .hardware import Figures, Hardware
from .plan import Refusal

if TYPE_CHECKING:
    from r1_operator.api.spec import R1DeploymentSpec


@dataclass(frozen=True)
class Profile(Figures):
    """One kind of node, and what the cluster asks of pods on such nodes. `given` is what was written, all of it that
    this profile and those it extends say."""

    given: HardwareProfile | None = None

    @classmethod
    def of(cls, figures: Figures) -> Profile:
        """A profile that says nothing of the pods."""
        return cls(**{field.name: getattr(figures, field.name) for field in fields(Figures)})

    @property
    def node_labels(self) -> tuple[NodeLabel, ...]:
        """Labels a node must carry to count as this hardware."""
        return self.given.node_labels if self.given else ()

    def under(self, engine: Engine) -> Engine:
        """A resource's `spec.engine` laid over what this profile says of the engine's pods."""
        return overlay(EnginePods.model_validate(_pods_of(self.given)), engine) if self.given else engine


def resolve(given: HardwareProfile, known: Mapping[str, Hardware], path: str) -> Profile | Refusal:
    """`given` with what it extends. `path`: of the profile in what the user wrote."""
    whole, base = given, None
    if given.extends is not None:
        base = known.get(given.extends)
        if base is None:
            near = get_close_matches(given.extends, known, n=3, cutoff=0.5) or sorted(known)
            return Refusal(f"{path}.extends", f"no profile {given.extends!r} is known", f"known: {', '.join(near)}")
        below = getattr(base, "given", None)
        whole = overlay(below, given) if isinstance(below, HardwareProfile) else given
    figures = {**_figures(base), **_said(whole)}
    if figures["usable_memory_mib"] > figures["memory_mib"]:
        return Refusal(
            f"{path}.usableMemoryMib",
            f"{figures['usable_memory_mib']} is more than memoryMib, which is {figures['memory_mib']}",
            "give the memory that is free before weights are loaded, which is 2 to 6 GiB less than memoryMib",
        )
    return Profile(**figures, given=whole)


def resolve_all(
    given: Iterable[tuple[str, HardwareProfile]], known: Mapping[str, Hardware]
) -> dict[str, Profile] | Refusal:
    """Profiles in order, each with its path; one may extend those before it, or the known one of its own name."""
    found: dict[str, Profile] = {}
    for path, profile in given:
        whole = resolve(profile, {**known, **found}, path)
        if isinstance(whole, Refusal):
            return whole
        found[profile.name] = whole
    return found


def with_own(spec: R1DeploymentSpec, known: Mapping[str, Hardware]) -> Mapping[str, Hardware] | Refusal:
    """The known profiles and the resource's own, which comes first."""
    if spec.hardware_profile is None:
        return known
    if spec.hardware_profile.name != spec.hardware:
        return Refusal(
            "spec.hardwareProfile.name",
            f"{spec.hardware_profile.name!r} differs from spec.hardware {spec.hardware!r}",
            f"name both {spec.hardware!r}",
        )
    own = resolve(spec.hardware_profile, known, "spec.hardwareProfile")
    return own if isinstance(own, Refusal) else {**known, own.name: own}


def _figures(base: Hardware | None) -> dict[str, Any]:
    return {} if base is None else {field.name: getattr(base, field.name) for field in fields(Figures)}


def _said(profile: HardwareProfile) -> dict[str, Any]:
    """The figures that a profile gives; an empty list of boards is none."""
    found = {field.name: getattr(profile, field.name) for field in fields(Figures)}
    return {name: value for name, value in found.items() if value not in (None, ())}


def _pods_of(profile: HardwareProfile | None) -> dict[str, Any]:
    return {} if profile is None else {name: getattr(profile, name) for name in EnginePods.model_fields}
