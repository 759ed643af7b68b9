"""`spec.engine`: the pods that run SGLang."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from .fabric import EngineFabric
from .fields import ApiModel, LongText, Quantity

EnvName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
EngineArgument = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class EnvVar(ApiModel):
    """One environment variable."""

    name: EnvName = Field(description="Name of the variable. Names that the operator sets are refused.")
    value: str = Field(default="", max_length=4096, description="Value, taken literally.")


class EngineResources(ApiModel):
    """Resources of one engine pod beside its GPUs. Absent = no request and no limit."""

    cpu: Quantity | None = Field(default=None, description="Processor cores: request and limit.")
    memory: Quantity | None = Field(default=None, description="Memory: request and limit. Counts sharedMemory.")
    shared_memory: Quantity | None = Field(
        default=None, description="Size of /dev/shm, which NCCL, DeepEP and Ray use. Absent = up to the memory limit."
    )


class Engine(ApiModel):
    """The pods that run SGLang."""

    image: LongText | None = Field(default=None, description="Image of the engine. Default: the chart's.")
    args: tuple[EngineArgument, ...] = Field(
        default=(),
        max_length=64,
        description="More SGLang arguments, after the planned ones. What the operator sets itself is refused.",
    )
    env: tuple[EnvVar, ...] = Field(
        default=(),
        max_length=64,
        description="More environment variables of the engine.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    resources: EngineResources = Field(
        default_factory=EngineResources, description="Processor, memory and shared memory of one engine pod."
    )
    fabric: EngineFabric = Field(default_factory=EngineFabric, description="The network between a replica's nodes.")
