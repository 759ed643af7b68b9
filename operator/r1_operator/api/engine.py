"""`spec.engine`: the pods that run SGLang."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from .fabric import EngineFabric
from .fields import ApiModel, LongText, ObjectName, OneOf, Quantity, ShortText
from .pod_template import EnginePodTemplate, EnvVar, Folder, PullPolicy, SecurityContext, VolumeMount, map_by

EngineArgument = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class EngineResources(ApiModel):
    """Resources of one engine pod beside its GPUs."""

    cpu: Quantity | None = Field(
        default=None, description="Processor cores: request and limit. Absent = one a GPU is requested."
    )
    memory: Quantity | None = Field(
        default=None,
        description="Memory: request and limit. Counts sharedMemory. Absent = 8 GiB a GPU are requested.",
    )
    shared_memory: Quantity | None = Field(
        default=None, description="Size of /dev/shm, which NCCL, DeepEP and Ray use. Absent = up to the memory limit."
    )
    requests: dict[ShortText, Quantity] = Field(
        default_factory=dict,
        max_length=4,
        description="cpu, memory and ephemeral-storage that are requested and not limited, instead of the field of that"
        " name or limits. A limit of cpu holds SGLang's schedulers up.",
    )
    limits: dict[ShortText, Quantity] = Field(
        default_factory=dict,
        max_length=16,
        description='Extended resources, huge pages and ephemeral-storage: request and limit, e.g. rdma/ib: "1". '
        "The GPUs are planned.",
    )


class CacheFolder(ApiModel):
    """A folder of each node, made if it is not there, below a prefix that the chart allows."""

    path: Folder = Field(
        description="Absolute path on the node, e.g. /var/cache/r1; see hostPaths.allowedPrefixes of the chart."
    )


class CacheClaim(ApiModel):
    """A claim in the resource's namespace that every node of a replica can mount for writing."""

    claim_name: ObjectName = Field(description="Name of the PersistentVolumeClaim, of ReadWriteMany.")


class EngineCache(OneOf):
    """Where compiled kernels outlive their pod. Exactly one source."""

    host_path: CacheFolder | None = Field(default=None, description="On each node's own disk: the faster one.")
    persistent_volume_claim: CacheClaim | None = Field(
        default=None, description="On a volume: for nodes that come and go."
    )


class EnginePods(ApiModel):
    """What a resource and a hardware profile say alike of the engine's pods."""

    env: tuple[EnvVar, ...] = Field(
        default=(),
        max_length=64,
        description="More environment variables of the engine.",
        json_schema_extra=map_by("name"),
    )
    resources: EngineResources = Field(
        default_factory=EngineResources,
        description="Processor, memory, shared memory and extended resources of one engine pod.",
    )
    pod_template: EnginePodTemplate = Field(
        default_factory=EnginePodTemplate, description="More of the engine's pods, in core/v1's names."
    )
    volume_mounts: tuple[VolumeMount, ...] = Field(
        default=(),
        max_length=32,
        description="Where the engine sees the volumes of podTemplate.spec.volumes.",
        json_schema_extra=map_by("mountPath"),
    )
    security_context: SecurityContext = Field(
        default_factory=SecurityContext, description="Rights of the engine's container."
    )
    cache: EngineCache | None = Field(
        default=None,
        description="Where the kernels that SGLang compiles are kept, by hardware and image. Absent = each pod compiles"
        " anew what its image does not hold: 10 to 20 minutes of a start.",
    )


class Engine(EnginePods):
    """The pods that run SGLang."""

    image: LongText | None = Field(default=None, description="Image of the engine. Default: the chart's.")
    image_pull_policy: PullPolicy | None = Field(
        default=None, description="When the image is pulled. Default: the chart's images.pullPolicy."
    )
    args: tuple[EngineArgument, ...] = Field(
        default=(),
        max_length=64,
        description="More SGLang arguments, after the planned ones. What the operator sets itself is refused.",
    )
    fabric: EngineFabric = Field(default_factory=EngineFabric, description="The network between a replica's nodes.")
