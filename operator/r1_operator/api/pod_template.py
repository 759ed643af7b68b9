"""What users may say of the pods that we make: names and types of core/v1, a short list of them.

The list is short because placement has to know what each field means for the choice of nodes. What the operator relies
on (its labels, volumes, mounts and variables) cannot be taken; `pod_rules.py` says so.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from .fields import ApiModel, LongText, ObjectName, Quantity, ShortText

Word = Annotated[str, StringConstraints(max_length=63)]
LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")]
AnnotationValue = Annotated[str, StringConstraints(max_length=8192)]
VolumeName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Folder = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
ConfigKey = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
EnvName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


def map_by(key: str) -> dict[str, Any]:
    """Schema of a list whose items are told apart by one field, for server-side apply and for `overlay`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


class FieldRef(ApiModel):
    """A field of the pod itself."""

    field_path: Annotated[str, StringConstraints(min_length=1, max_length=253)] = Field(
        description="Path of the field, e.g. status.hostIP or metadata.labels['x']."
    )


class KeyRef(ApiModel):
    """One key of a ConfigMap or Secret in the resource's namespace."""

    name: ObjectName = Field(description="Name of the object.")
    key: ConfigKey = Field(description="Key inside it.")
    optional: bool | None = Field(default=None, description="Start also where it is missing.")


class EnvVarSource(ApiModel):
    """Where a variable's value comes from. Exactly one source."""

    field_ref: FieldRef | None = Field(default=None, description="A field of the pod.")
    config_map_key_ref: KeyRef | None = Field(default=None, description="A key of a ConfigMap.")
    secret_key_ref: KeyRef | None = Field(default=None, description="A key of a Secret.")


class EnvVar(ApiModel):
    """One environment variable."""

    name: EnvName = Field(description="Name of the variable. Names that the operator sets are refused.")
    value: str = Field(default="", max_length=4096, description="Value, taken literally.")
    value_from: EnvVarSource | None = Field(default=None, description="Source of the value, instead of value.")


class Toleration(ApiModel):
    """A taint that the pods tolerate."""

    key: ShortText | None = Field(default=None, description="Key of the taint. Absent = every key; needs Exists.")
    operator: Literal["Exists", "Equal"] | None = Field(
        default=None, description="How value is compared. Absent = Equal."
    )
    value: Word | None = Field(default=None, description="Value of the taint, with Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint. Absent = every effect."
    )
    toleration_seconds: int | None = Field(
        default=None, ge=0, le=31_536_000, description="How long a NoExecute taint is tolerated. Absent = for ever."
    )


class LocalObjectReference(ApiModel):
    """An object in the same namespace."""

    name: ObjectName = Field(description="Name of the object.")


class HostPathVolume(ApiModel):
    """A folder or file of the node, below a prefix that the chart allows (hostPaths.allowedPrefixes)."""

    path: Folder = Field(description="Absolute path on the node.")
    type: Word | None = Field(default=None, description="What must be there, e.g. DirectoryOrCreate; as in core/v1.")


class ClaimVolume(ApiModel):
    """A PersistentVolumeClaim in the same namespace."""

    claim_name: ObjectName = Field(description="Name of the claim. Every node of a replica mounts it.")
    read_only: bool | None = Field(default=None, description="Mount it read-only.")


class ConfigMapVolume(ApiModel):
    """The keys of a ConfigMap in the same namespace as files."""

    name: ObjectName = Field(description="Name of the ConfigMap.")
    optional: bool | None = Field(default=None, description="Start also where it is missing.")


class SecretVolume(ApiModel):
    """The keys of a Secret in the same namespace as files."""

    secret_name: ObjectName = Field(description="Name of the Secret.")
    optional: bool | None = Field(default=None, description="Start also where it is missing.")


class EmptyDirVolume(ApiModel):
    """A folder that lives as long as the pod."""

    medium: Literal["Memory", "HugePages", "HugePages-2Mi", "HugePages-1Gi"] | None = Field(
        default=None, description="Absent = the node's disk."
    )
    size_limit: Quantity | None = Field(default=None, description="Most that it may hold.")


class Volume(ApiModel):
    """A volume beside the operator's own. Exactly one source."""

    name: VolumeName = Field(description="Name for volumeMounts. Names that the operator uses are refused.")
    host_path: HostPathVolume | None = Field(default=None, description="A folder or file of the node.")
    persistent_volume_claim: ClaimVolume | None = Field(default=None, description="A claim in the same namespace.")
    config_map: ConfigMapVolume | None = Field(default=None, description="A ConfigMap in the same namespace.")
    secret: SecretVolume | None = Field(default=None, description="A Secret in the same namespace.")
    empty_dir: EmptyDirVolume | None = Field(default=None, description="A folder that lives as long as the pod.")


class VolumeMount(ApiModel):
    """Where the engine's container sees a volume of podTemplate.spec.volumes."""

    name: VolumeName = Field(description="Name of the volume.")
    mount_path: Folder = Field(description="Absolute path in the container. Paths that the operator uses are refused.")
    sub_path: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        default=None, description="Folder inside the volume."
    )
    read_only: bool | None = Field(default=None, description="Mount it read-only.")


class Capabilities(ApiModel):
    """Linux capabilities. All others are dropped."""

    add: tuple[Word, ...] = Field(default=(), max_length=32, description="Capabilities to add, e.g. SYS_NICE.")


class SecurityContext(ApiModel):
    """Rights of a container beyond what it gets by itself (the engine's: IPC_LOCK where RDMA pins memory)."""

    privileged: bool | None = Field(
        default=None, description="All rights and devices of the node; DeepEP's IBGDA needs it on many nodes."
    )
    capabilities: Capabilities = Field(default_factory=Capabilities, description="Capabilities to add.")


class PodMetadata(ApiModel):
    """Labels and annotations of the pods, beside the operator's own."""

    labels: dict[ShortText, LabelValue] = Field(
        default_factory=dict, max_length=32, description="Labels; the operator's own are refused."
    )
    annotations: dict[ShortText, AnnotationValue] = Field(
        default_factory=dict,
        max_length=32,
        description="Annotations, e.g. k8s.v1.cni.cncf.io/networks for a second network.",
    )


class PodSpec(ApiModel):
    """Where pods may run and as whom."""

    node_selector: dict[ShortText, LabelValue] = Field(
        default_factory=dict, max_length=32, description="Labels that a node must carry."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(), max_length=32, description="Taints that the pods tolerate, beside the operator's own."
    )
    runtime_class_name: ObjectName | None = Field(
        default=None, description="RuntimeClass, e.g. nvidia where that is not the nodes' default runtime."
    )
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass.")
    service_account_name: ObjectName | None = Field(
        default=None, description="ServiceAccount, for admission policies; its token is not mounted."
    )
    image_pull_secrets: tuple[LocalObjectReference, ...] = Field(
        default=(),
        max_length=16,
        description="Secrets in the same namespace to pull images with, beside the chart's images.pullSecrets.",
        json_schema_extra=map_by("name"),
    )


class ContainerResources(ApiModel):
    """Resources of a container of the user's own."""

    requests: dict[ShortText, Quantity] = Field(
        default_factory=dict, max_length=8, description="What is set aside for it."
    )
    limits: dict[ShortText, Quantity] = Field(
        default_factory=dict, max_length=8, description="What it may use; for extended resources what it gets."
    )


class InitContainer(ApiModel):
    """A container that ends before the engine starts or, with restartPolicy Always, runs beside it and ends with it."""

    name: VolumeName = Field(description="Name of the container; not that of the engine's.")
    image: LongText = Field(description="Image of the container, as a registry has it.")
    image_pull_policy: PullPolicy | None = Field(
        default=None, description="When the image is pulled. Default: the chart's images.pullPolicy."
    )
    command: tuple[AnnotationValue, ...] = Field(
        default=(), max_length=16, description="What runs. Absent = the image's own."
    )
    args: tuple[AnnotationValue, ...] = Field(default=(), max_length=64, description="Its arguments.")
    env: tuple[EnvVar, ...] = Field(
        default=(), max_length=32, description="Environment variables.", json_schema_extra=map_by("name")
    )
    restart_policy: Literal["Always"] | None = Field(
        default=None,
        description="Always = a sidecar, such as a fabric's daemon: the engine starts after it and it ends with the"
        " engine. Absent = it must end well before the engine starts.",
    )
    resources: ContainerResources = Field(
        default_factory=ContainerResources, description="Its resources; the GPUs are the engine's."
    )
    volume_mounts: tuple[VolumeMount, ...] = Field(
        default=(),
        max_length=16,
        description="Where it sees the volumes of podTemplate.spec.volumes.",
        json_schema_extra=map_by("mountPath"),
    )
    security_context: SecurityContext = Field(default_factory=SecurityContext, description="Its rights.")


class EnginePodSpec(PodSpec):
    """Where the engine's pods may run, as whom, in which network, with which volumes and beside what."""

    host_network: bool | None = Field(
        default=None, description="Use the node's network, as RoCE needs without a second one. No NetworkPolicy holds."
    )
    volumes: tuple[Volume, ...] = Field(
        default=(),
        max_length=32,
        description="Volumes beside the operator's own.",
        json_schema_extra=map_by("name"),
    )
    init_containers: tuple[InitContainer, ...] = Field(
        default=(),
        max_length=8,
        description="Containers that run before the engine, in this order, or beside it.",
        json_schema_extra=map_by("name"),
    )


class PodTemplate(ApiModel):
    """What is said of the pods beside what the operator says: a short list of core/v1's fields."""

    metadata: PodMetadata = Field(default_factory=PodMetadata, description="Labels and annotations.")
    spec: PodSpec = Field(default_factory=PodSpec, description="Where the pods may run and as whom.")


class EnginePodTemplate(ApiModel):
    """What is said of the pods beside what the operator says: a short list of core/v1's fields."""

    metadata: PodMetadata = Field(default_factory=PodMetadata, description="Labels and annotations.")
    spec: EnginePodSpec = Field(
        default_factory=EnginePodSpec, description="Where the pods may run, as whom, in which network, with what."
    )
