"""`spec` of an R1Deployment. Bounds and defaults here become the CRD's schema; rules across fields are in `rules.py`.

Descriptions are what `kubectl explain r1d.spec` prints.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .autoscaling import Autoscaling
from .engine import Engine
from .fields import ApiModel, ObjectName, ShortText
from .gateway import Gateway
from .hardware import HardwareProfile
from .names import MAX_NODES_PER_REPLICA, MAX_REPLICAS, MAX_SPARES
from .strategy import Strategy

Objective = Literal["Throughput", "Latency", "SLO"]
MoeA2aBackend = Literal["None", "DeepEP"]


# The longest a sound start shows nothing: DeepGEMM's kernels, "typically 10-20 mins" (SGLang's compile_utils.py), where
# they are compiled inside the process. A start that is ended wrongly is lost, and so is the next one; one that is ended
# ten minutes late only wastes ten minutes.
STALL_SECONDS = 1800


class PersistentVolumeClaimWeights(ApiModel):
    """A claim in the resource's namespace that every node of a replica can mount read-only."""

    claim_name: ObjectName = Field(
        description="Name of the PersistentVolumeClaim. With more than one node it needs ReadOnlyMany or ReadWriteMany."
    )


class HostPathWeights(ApiModel):
    """A folder that exists on every node, for example on local NVMe."""

    path: str = Field(
        min_length=1,
        max_length=1024,
        description="Absolute path on the node of the folder to mount; see path for where config.json lies in it.",
    )


class Weights(ApiModel):
    """Where the weights are. Exactly one source."""

    persistent_volume_claim: PersistentVolumeClaimWeights | None = Field(
        default=None, description="Weights on a PersistentVolumeClaim in the same namespace."
    )
    host_path: HostPathWeights | None = Field(
        default=None, description="Weights in a folder that exists on every node that may be chosen."
    )
    path: str = Field(
        default="",
        max_length=1024,
        description="Folder inside the volume, or below hostPath, that holds config.json; empty = its root. All of the"
        " volume is mounted, so that what links in that folder lead to is there: of Hugging Face's cache"
        " models--deepseek-ai--DeepSeek-R1-0528/snapshots/<commit>.",
    )


class Model(ApiModel):
    """What is served."""

    name: ShortText = Field(
        description="Model the planner knows, e.g. deepseek-ai/DeepSeek-R1-0528, or any name together with baseModel."
    )
    served_name: ShortText | None = Field(
        default=None, description="Name that clients put in their requests. Default: name."
    )
    base_model: ShortText | None = Field(
        default=None,
        description="For a fine-tune: the known model whose shape it has, e.g. deepseek-ai/DeepSeek-R1.",
    )
    weights: Weights = Field(description="Where the weights are: exactly one of persistentVolumeClaim and hostPath.")

    @property
    def served_as(self) -> str:
        """The name clients use."""
        return self.served_name or self.name

    @property
    def planned_as(self) -> str:
        """The known model the planner reckons with."""
        return self.base_model or self.name


class Topology(ApiModel):
    """How one replica is laid out. What is absent the planner chooses; what is set is kept, or refused."""

    nodes_per_replica: int | None = Field(
        default=None, ge=1, le=MAX_NODES_PER_REPLICA, description="Whole nodes that one replica takes."
    )
    tensor_parallel: int | None = Field(
        default=None, ge=1, le=1024, description="Ranks of one replica (SGLang's --tp-size), over all its nodes."
    )
    attention_data_parallel: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Groups that share attention work by request instead of by head. Divides tensorParallel.",
    )
    expert_parallel: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Ranks over which the experts are spread. Divides tensorParallel; equals it with DeepEP.",
    )
    redundant_experts: int | None = Field(
        default=None, ge=0, le=256, description="Extra copies of busy experts, spread over the expert-parallel ranks."
    )
    moe_a2a_backend: MoeA2aBackend | None = Field(
        default=None, description="How tokens reach their experts: None (all-reduce) or DeepEP (all-to-all)."
    )


class Limits(ApiModel):
    """Sizes of the engine. The planner chooses what is absent."""

    context_length: int | None = Field(
        default=None, ge=64, le=1_048_576, description="Longest prompt plus answer of one request, in tokens."
    )
    max_running_requests: int | None = Field(
        default=None, ge=1, le=65_536, description="Requests that one replica decodes at once."
    )
    memory_fraction_percent: int | None = Field(
        default=None,
        ge=1,
        le=95,
        description="Share of a GPU's memory for weights and KV cache, in percent; the rest is for activations.",
    )
    chunked_prefill_size: int | None = Field(
        default=None, ge=64, le=1_048_576, description="Most prompt tokens of one prefill step of a replica."
    )


class Slo(ApiModel):
    """Latencies that the planner's estimate must keep. At least one."""

    ttft_milliseconds: int | None = Field(
        default=None, ge=1, le=600_000, description="Time to the first token of a prompt, in milliseconds."
    )
    tpot_milliseconds: int | None = Field(
        default=None, ge=1, le=600_000, description="Time per output token after the first, in milliseconds."
    )


class Drain(ApiModel):
    """What happens to running requests when a replica leaves."""

    # A drain ends when no request runs any more; the limit is for those that never end. 20,000 tokens of thought at
    # 30 tokens/s are 11 minutes, and the longest that R1's makers sample (32,768) are 18.
    seconds: int = Field(
        default=1200,
        ge=0,
        le=86_400,
        description="How long running requests may take to finish, in seconds; what is left is cut.",
    )


class Startup(ApiModel):
    """How long a start may take, and how long it may stand still."""

    # Only for what goes forward and never arrives: loads of 80 minutes were seen; 642 GiB at 50 MB/s take 3.8 hours.
    seconds: int = Field(
        default=14_400,
        ge=10,
        le=86_400,
        description="Time from the pods' start to a real token of every rank, in seconds, however steadily it goes "
        "forward; then the start has failed.",
    )
    stall_seconds: int | None = Field(
        default=None,
        ge=10,
        le=86_400,
        description="How long a start may stand still, in seconds: no node joins, reads weights, compiles, or gets on "
        f"in its output. Absent = {STALL_SECONDS}, or seconds if that is less.",
    )

    @property
    def may_stand_still(self) -> int:
        """Seconds without any progress after which a start has failed."""
        return min(self.seconds, STALL_SECONDS if self.stall_seconds is None else self.stall_seconds)


class R1DeploymentSpec(ApiModel):
    """What is wanted. model and hardware are enough; the planner chooses and explains the rest."""

    model: Model = Field(description="The model and where its weights are.")
    hardware: ShortText = Field(
        description="Hardware profile by name, e.g. H100x8: built in, from the chart, or spec.hardwareProfile."
    )
    hardware_profile: HardwareProfile | None = Field(
        default=None, description="A hardware profile of this resource's own. Its name must equal spec.hardware."
    )
    objective: Objective = Field(
        default="Throughput",
        description="What the planner prefers where both cannot be had: Throughput, Latency, or as much throughput as"
        " spec.slo allows (SLO).",
    )
    slo: Slo | None = Field(default=None, description="Promised latencies. Needs objective SLO, and objective SLO it.")
    topology: Topology = Field(
        default_factory=Topology, description="Overrides of the layout that the planner would choose."
    )
    limits: Limits = Field(default_factory=Limits, description="Overrides of the sizes that the planner would choose.")
    replicas: int = Field(
        default=1,
        ge=0,
        le=MAX_REPLICAS,
        description="Replicas wanted; kubectl scale sets it. With spec.autoscaling only the first value; 0 stops all.",
    )
    autoscaling: Autoscaling | None = Field(
        default=None, description="Let the operator choose the number of replicas. Absent = spec.replicas is law."
    )
    spare_replicas: int = Field(
        default=0,
        ge=0,
        le=MAX_SPARES,
        description="Hot spares: so many replicas more than are wanted. They serve like the others, so that what fails "
        "leaves enough at once; the autoscaler counts without them, and a change may take them away first.",
    )
    strategy: Strategy = Field(default_factory=Strategy, description="How a change reaches the replicas.")
    paused: bool = Field(
        default=False,
        description="Roll nothing out: what runs is kept, healed and scaled as what it is.",
    )
    drain: Drain = Field(default_factory=Drain, description="How replicas leave.")
    startup: Startup = Field(default_factory=Startup, description="How long replicas may take to start.")
    engine: Engine = Field(default_factory=Engine, description="The pods that run SGLang.")
    gateway: Gateway = Field(default_factory=Gateway, description="The router in front of the replicas.")

    @property
    def most_replicas(self) -> int:
        """How many there may ever be at once, spares among them."""
        most = self.autoscaling.max_replicas if self.autoscaling is not None else self.replicas
        return most + (self.spare_replicas if most else 0)
