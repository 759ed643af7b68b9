"""A hardware profile: what one node of a replica offers, and what the cluster asks of pods on such nodes.

Built-in ones are data of the planner; users add their own in the resource (`spec.hardwareProfile`) or in the chart
(`hardwareProfiles`), whole or as an addition to a known one (`extends`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .engine import EnginePods
from .fields import ApiModel, LongText, ShortText
from .names import DEFAULT_GPU_RESOURCE
from .pod_template import LabelValue, map_by

Device = Literal["Cuda", "Cpu"]
Megabytes = Annotated[int, Field(ge=1, le=4_194_304)]
Rate = Annotated[int, Field(ge=1, le=100_000)]
RateOrNone = Annotated[int, Field(ge=0, le=100_000)]


class NodeLabel(ApiModel):
    """A label of a node and the values that count."""

    key: ShortText = Field(description="Key of the label, e.g. nvidia.com/gpu.product.")
    values: tuple[LabelValue, ...] = Field(min_length=1, max_length=16, description="Any of these values will do.")


class HardwareProfile(EnginePods):
    """One kind of node, as the planner sees it. Rates are dense (no sparsity) and per GPU unless the name says node."""

    name: ShortText = Field(description="Name of the profile. In a resource it must equal spec.hardware.")
    extends: ShortText | None = Field(
        default=None,
        description="Name of a known profile that this one adds to: what is absent here is as it is there. A profile "
        "of the chart may extend the built-in one of its own name.",
    )
    device: Device | None = Field(
        default=None,
        description="Cuda for NVIDIA GPUs; Cpu runs one rank per counted device on processor cores, for trying out. "
        "Absent = Cuda.",
    )
    resource_name: ShortText | None = Field(
        default=None,
        description=f"Extended resource that counts the devices of a node. Absent = {DEFAULT_GPU_RESOURCE}.",
    )
    products: tuple[LabelValue, ...] = Field(
        default=(),
        max_length=16,
        description="Names of the board as the node label nvidia.com/gpu.product spells them. A node whose label says "
        "otherwise is not taken, and an engine that finds another board does not start. Empty: any board.",
    )
    gpus_per_node: Annotated[int, Field(ge=1, le=16)] | None = Field(
        default=None, description="Devices of a node. A replica takes whole nodes."
    )
    memory_mib: Megabytes | None = Field(default=None, description="Memory of one GPU in MiB, as nvidia-smi prints it.")
    usable_memory_mib: Megabytes | None = Field(
        default=None,
        description="Memory of one GPU in MiB that is free after the process groups exist and before weights load.",
    )
    compute_capability: Annotated[int, Field(ge=0, le=200)] | None = Field(
        default=None, description="CUDA compute capability times ten: 90 for Hopper, 100 for Blackwell. Absent = 90."
    )
    bf16_tflops: Rate | None = Field(default=None, description="Dense BF16 rate of one GPU in TFLOP/s.")
    fp8_tflops: Rate | None = Field(
        default=None, description="Dense FP8 rate of one GPU in TFLOP/s; absent = no FP8 units."
    )
    memory_bandwidth_gbytes_per_second: Rate | None = Field(
        default=None, description="Memory bandwidth of one GPU in GB/s (10^9 bytes)."
    )
    nvlink_gbytes_per_second: RateOrNone | None = Field(
        default=None, description="NVLink bandwidth of one GPU, one direction, in GB/s. Absent = 0, none."
    )
    network_gbits_per_second: RateOrNone | None = Field(
        default=None, description="Network bandwidth of one node to others in Gbit/s. Absent = 0, no fabric."
    )
    node_labels: tuple[NodeLabel, ...] = Field(
        default=(),
        max_length=16,
        description="Labels a node must carry to count as this hardware, each with the values that will do.",
        json_schema_extra=map_by("key"),
    )
    source: LongText | None = Field(default=None, description="Where the figures come from.")


FIGURES = ("gpus_per_node", "memory_mib", "usable_memory_mib", "bf16_tflops", "memory_bandwidth_gbytes_per_second")
"""What a profile that extends none must say."""
