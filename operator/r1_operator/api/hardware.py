"""A hardware profile: what one node of a replica offers. Built-in ones are data of the planner; users add their own
in the resource (`spec.hardwareProfile`) or in the chart (`hardwareProfiles`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from .fields import ApiModel, LongText, ShortText
from .names import DEFAULT_GPU_RESOURCE

Device = Literal["Cuda", "Cpu"]
LabelValue = Annotated[str, StringConstraints(max_length=63)]


class HardwareProfile(ApiModel):
    """One kind of node, as the planner sees it. Rates are dense (no sparsity) and per GPU unless the name says node."""

    name: ShortText = Field(description="Name of the profile. In a resource it must equal spec.hardware.")
    device: Device = Field(
        default="Cuda",
        description="Cuda for NVIDIA GPUs; Cpu runs one rank per counted device on processor cores, for trying out.",
    )
    resource_name: ShortText = Field(
        default=DEFAULT_GPU_RESOURCE, description="Extended resource that counts the devices of a node."
    )
    products: tuple[LabelValue, ...] = Field(
        default=(),
        max_length=16,
        description="Names of the board as the node label nvidia.com/gpu.product spells them. A node whose label says "
        "otherwise is not taken, and an engine that finds another board does not start. Empty: any board.",
    )
    gpus_per_node: int = Field(ge=1, le=16, description="Devices of a node. A replica takes whole nodes.")
    memory_mib: int = Field(ge=1, le=4_194_304, description="Memory of one GPU in MiB, as nvidia-smi prints it.")
    usable_memory_mib: int = Field(
        ge=1,
        le=4_194_304,
        description="Memory of one GPU in MiB that is free after the process groups exist and before weights load.",
    )
    compute_capability: int = Field(
        default=90, ge=0, le=200, description="CUDA compute capability times ten: 90 for Hopper, 100 for Blackwell."
    )
    bf16_tflops: int = Field(ge=1, le=100_000, description="Dense BF16 rate of one GPU in TFLOP/s.")
    fp8_tflops: int | None = Field(
        default=None, ge=1, le=100_000, description="Dense FP8 rate of one GPU in TFLOP/s; absent = no FP8 units."
    )
    memory_bandwidth_gbytes_per_second: int = Field(
        ge=1, le=100_000, description="Memory bandwidth of one GPU in GB/s (10^9 bytes)."
    )
    nvlink_gbytes_per_second: int = Field(
        default=0, ge=0, le=100_000, description="NVLink bandwidth of one GPU, one direction, in GB/s; 0 = none."
    )
    network_gbits_per_second: int = Field(
        default=0, ge=0, le=100_000, description="Network bandwidth of one node to others in Gbit/s; 0 = no fabric."
    )
    node_selector: dict[ShortText, LabelValue] = Field(
        default_factory=dict,
        max_length=16,
        description="Labels a node must carry to count as this hardware, e.g. nvidia.com/gpu.product.",
    )
    source: LongText | None = Field(default=None, description="Where the figures come from.")
