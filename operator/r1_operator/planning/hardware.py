"""Hardware as the planner sees it, and the built-in profiles, read from `hardware.json` beside this file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from r1_operator.api.names import DEFAULT_GPU_RESOURCE

if TYPE_CHECKING:
    from .profiles import Profile


class Hardware(Protocol):
    """What planning reads of a profile: `Figures` are that, and so is `profiles.Profile`. Units are in the names."""

    @property
    def name(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def resource_name(self) -> str: ...
    @property
    def products(self) -> tuple[str, ...]: ...
    @property
    def gpus_per_node(self) -> int: ...
    @property
    def memory_mib(self) -> int: ...
    @property
    def usable_memory_mib(self) -> int: ...
    @property
    def compute_capability(self) -> int: ...
    @property
    def bf16_tflops(self) -> int: ...
    @property
    def fp8_tflops(self) -> int | None: ...
    @property
    def memory_bandwidth_gbytes_per_second(self) -> int: ...
    @property
    def nvlink_gbytes_per_second(self) -> int: ...
    @property
    def network_gbits_per_second(self) -> int: ...
    @property
    def source(self) -> str: ...


@dataclass(frozen=True)
class Figures:
    """What a node is, without pydantic, whose import is half of what `r1 plan` would take to start."""

    name: str
    gpus_per_node: int
    memory_mib: int
    usable_memory_mib: int
    bf16_tflops: int
    memory_bandwidth_gbytes_per_second: int
    source: str = ""
    compute_capability: int = 90
    fp8_tflops: int | None = None
    nvlink_gbytes_per_second: int = 0
    network_gbits_per_second: int = 0
    device: str = "Cuda"
    resource_name: str = DEFAULT_GPU_RESOURCE
    products: tuple[str, ...] = ()


def figures_of(profile: Hardware) -> Figures:
    """A profile without what it says of the pods: all that a plan is made from."""
    return Figures(**{field.name: getattr(profile, field.name) for field in fields(Figures)})


@cache
def built_in_hardware() -> Mapping[str, Figures]:
    """The built-in profiles by name: one GPU kind times the node sizes that are sold."""
    return MappingProxyType({entry["name"]: Figures(**_snake(entry)) for entry in _entries()})


@cache
def built_in_profiles() -> Mapping[str, Profile]:
    """The same, to stand beside profiles that users add."""
    from .profiles import Profile

    return MappingProxyType({name: Profile.of(figures) for name, figures in built_in_hardware().items()})


def _entries() -> list[dict[str, Any]]:
    """Profiles in the resource's spelling. A smaller machine has its share of the node's network."""
    cards = json.loads(Path(__file__).with_name("hardware.json").read_text(encoding="utf-8"))
    return [_entry(card, size) for card in cards for size in card["gpusPerNode"]]


def _entry(card: Mapping[str, Any], size: int) -> dict[str, Any]:
    figures = {key: value for key, value in card.items() if key not in {"sources", "networkGbitsPerSecondPerGpu"}}
    return figures | {
        "name": f"{card['name']}x{size}",
        "gpusPerNode": size,
        "products": tuple(card.get("products", ())),
        "networkGbitsPerSecond": card.get("networkGbitsPerSecondPerGpu", 0) * size,
        "source": " ".join(f"{key}: {text}" for key, text in card["sources"].items()),
    }


def _snake(entry: Mapping[str, Any]) -> dict[str, Any]:
    """`usableMemoryMib` → `usable_memory_mib`."""
    return {re.sub("[A-Z]", lambda letter: f"_{letter.group().lower()}", key): value for key, value in entry.items()}
