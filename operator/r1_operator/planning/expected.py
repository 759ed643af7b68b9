"""What the engine is to find: the plan's hardware and model in figures that NVML and config.json tell. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .hardware import Hardware
from .layout import Layout
from .model import DRAFT_LAYERS, QUANTIZATION_CONFIGS, Model


@dataclass(frozen=True, slots=True)
class ExpectedHardware:
    """One node. `products`: values of nvidia.com/gpu.product, empty for any. `compute_capability`: times ten, None for
    any."""

    profile: str
    gpus: int
    products: tuple[str, ...]
    memory_mib: int
    compute_capability: int | None


@dataclass(frozen=True, slots=True)
class ExpectedModel:
    """`quantization` and `weight_block`: quant_method and weight_block_size of config.json's quantization_config.
    `figures`: whole numbers of config.json, each with its key."""

    name: str
    architecture: str
    quantization: str | None
    weight_block: tuple[int, int] | None
    figures: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Expected:
    """`hardware` is None for processor cores, of which NVML knows nothing."""

    hardware: ExpectedHardware | None
    model: ExpectedModel


def expected(profile: Hardware, model: Model, layout: Layout) -> Expected:
    """Of one node of the profile, and of the model as this layout uses it."""
    method, block = QUANTIZATION_CONFIGS[model.quantization]
    figures = tuple((key, value) for key, value in model.figures if layout.draft or key != DRAFT_LAYERS)
    return Expected(
        None if profile.device == "Cpu" else _hardware(profile),
        ExpectedModel(model.name, model.class_name, method, block, figures),
    )


def _hardware(profile: Hardware) -> ExpectedHardware:
    return ExpectedHardware(
        profile.name,
        profile.gpus_per_node,
        tuple(profile.products),
        profile.memory_mib,
        profile.compute_capability or None,
    )
