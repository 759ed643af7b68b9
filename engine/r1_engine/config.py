"""What one pod of a gang is told: `engine.json` (the same for every pod) and the pod's own environment."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from r1_engine.expected import Expected

DEFAULT_CONFIG_PATH = "/etc/r1/engine.json"
DEFAULT_TOKEN_PATH = "/var/run/r1/ray-token"
DEFAULT_KEY_PATH = "/var/run/r1/engine-key"

# What the engine sets by itself: two values for one of them would be decided by their order.
OWN_ARGUMENTS = (
    "--model-path",
    "--model",
    "--served-model-name",
    "--host",
    "--port",
    "--nnodes",
    "--node-rank",
    "--dist-init-addr",
    "--api-key",
    "--enable-metrics",
    "--use-ray",
    "--watchdog-timeout",
)

Port = Annotated[int, Field(ge=1, le=65535)]


class ConfigError(Exception):
    """A setting that cannot work: which one (`where`), why, and what to do about it."""

    def __init__(self, where: str, why: str, remedy: str, reason: str = "ConfigurationInvalid") -> None:
        super().__init__(f"{where}: {why}. {remedy}")
        self.where, self.why, self.remedy, self.reason = where, why, remedy, reason


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Ports(_Frozen):
    """TCP ports; each pod has its own address, so every gang uses the same ones."""

    http: Port = 30000
    agent: Port = 8500
    ray: Port = 6379
    dist: Port = 25000

    @model_validator(mode="after")
    def _distinct(self) -> Ports:
        if len({self.http, self.agent, self.ray, self.dist}) < 4:
            raise ValueError("http, agent, ray and dist must be four different ports")
        return self


class FabricPlan(_Frozen):
    """What the plan counts on between the nodes. `transport`: `Rdma` or `Tcp` as the user wants it, None: as the
    hardware has it. `gbits_per_node`: Gbit/s of one node in the plan's reckoning, 0 = none. `needs_rdma`: the plan's
    all-to-all does not run over anything else."""

    model_config = ConfigDict(extra="ignore")

    transport: str | None = None
    gbits_per_node: Annotated[float, Field(ge=0)] = 0
    needs_rdma: bool = False

    @property
    def requires_rdma(self) -> bool:
        """Whether a gang without RDMA is not to be started."""
        return self.needs_rdma or self.transport == "Rdma"


class EngineConfig(_Frozen):
    """`engine.json`. An operator that is newer than this engine may say more than it knows: an image that a user has
    pinned must outlive the operator's next release."""

    model_config = ConfigDict(extra="ignore")

    deployment: str
    replica: Annotated[int, Field(ge=0)]
    attempt: Annotated[int, Field(ge=0)]
    nodes: Annotated[int, Field(ge=1)]
    gpus_per_node: Annotated[int, Field(ge=1)]
    device: Literal["cuda", "cpu"] = "cuda"
    head_address: str
    served_name: str
    model_path: Path
    engine_args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    attention_data_parallel: Annotated[int, Field(ge=1)] = 1
    start_seconds: Annotated[float, Field(gt=0)] = 14_400
    stall_seconds: Annotated[float, Field(gt=0)] | None = None  # not told by an operator older than this engine
    drain_seconds: Annotated[float, Field(ge=0)] = 300
    expected: Expected = Expected()  # an operator older than this engine tells nothing, and nothing is compared
    ports: Ports = Ports()
    kernel_cache: Path | None = None  # where compiled kernels are kept beyond this pod
    fabric: FabricPlan | None = None  # of a gang of one node, or told by an operator that does not know it

    @property
    def may_stand_still(self) -> float:
        """Seconds without any progress after which a start has failed."""
        return min(self.start_seconds, self.stall_seconds or self.start_seconds)

    @field_validator("engine_args")
    @classmethod
    def _no_own_arguments(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        taken = sorted({arg.split("=", 1)[0] for arg in value} & set(OWN_ARGUMENTS))
        if taken:
            raise ValueError(f"{', '.join(taken)} is set by the engine itself; remove it")
        return value

    @model_validator(mode="after")
    def _ranks(self) -> EngineConfig:
        ranks = self.nodes * self.gpus_per_node
        if ranks % self.attention_data_parallel:
            raise ValueError(
                f"attentionDataParallel {self.attention_data_parallel} must divide nodes × gpusPerNode = {ranks}"
            )
        return self


class Limits(_Frozen):
    """Times in seconds after which silence counts as failure, and how often we look.

    `hang` + `probe` + one look stays under 15 s, the promise for a frozen rank; `lease` + `beat` for a cut network.
    `slow`: how far `hang` may grow where steps were seen, or have to be feared, to take long (see `pace`).
    `starved`: how much of a silence may at most be excused by a machine that gave the engine no CPU, `compiling`: by
    compilers that ran. `settle`: how long what reads like a consequence waits for its cause: a lost peer or parent is
    seen in milliseconds, and a busy machine may report the process that died first later.
    """

    beat: Annotated[float, Field(gt=0)] = 1.0
    lease: Annotated[float, Field(gt=0)] = 11.0
    probe: Annotated[float, Field(gt=0)] = 2.0
    hang: Annotated[float, Field(gt=0)] = 11.0
    slow: Annotated[float, Field(gt=0)] = 180.0
    starved: Annotated[float, Field(ge=0)] = 60.0
    compiling: Annotated[float, Field(ge=0)] = 1800.0
    settle: Annotated[float, Field(gt=0)] = 2.0
    # SGLang looks at its own SIGTERM flag every 5 s and then gives its schedulers time to release memory.
    stop: Annotated[float, Field(gt=0)] = 20.0

    @property
    def longest_silence(self) -> float:
        """After this a rank is hung, whatever excuses it."""
        return max(self.hang, self.slow) + self.starved + self.compiling


class Pod(_Frozen):
    """Who and where this pod is; from the environment."""

    name: str
    ip: str
    node_name: str
    index: Annotated[int, Field(ge=0)]
    run_dir: Path = Path("/tmp/r1")
    termination_log: Path = Path("/dev/termination-log")

    @property
    def listen(self) -> str:
        """All interfaces, or the address alone where "nodes" are loopback addresses of one machine."""
        address = ipaddress.ip_address(self.ip)
        if address.is_loopback:
            return self.ip
        return "::" if address.version == 6 else "0.0.0.0"


class Settings(_Frozen):
    """Everything the agent of one pod decides by."""

    config: EngineConfig
    pod: Pod
    limits: Limits = Limits()
    token: Annotated[str, Field(min_length=1, repr=False)]
    key_file: Path | None = None
    """Holds the key that the HTTP port asks for; None of an operator that is older than this engine and made none."""
    limits_file: Path | None = None
    """Holds the limits of time of the moment (`deadlines`); None: those of engine.json hold."""
    unknown: tuple[str, ...] = ()
    """Fields of engine.json that this engine does not know and passes over."""

    @property
    def is_head(self) -> bool:
        return self.pod.index == 0

    @property
    def label(self) -> str:
        return f"node {self.pod.index} ({self.pod.node_name})"


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Reads the file, the token and the environment. Raises ConfigError naming the field, the reason and the remedy."""
    config_path = Path(environ.get("R1_ENGINE_CONFIG", DEFAULT_CONFIG_PATH))
    document = _read_json(config_path)
    config = _parse(EngineConfig, document, str(config_path), "Correct this field of the file")
    unknown = tuple(sorted(set(document) - {to_camel(name) for name in EngineConfig.model_fields}))
    pod = _parse(
        Pod,
        {
            "name": _variable(environ, "POD_NAME"),
            "ip": _variable(environ, "POD_IP"),
            "nodeName": environ.get("NODE_NAME") or _variable(environ, "POD_NAME"),
            "index": _variable(environ, "R1_NODE_INDEX"),
            "runDir": environ.get("R1_RUN_DIR", "/tmp/r1"),
            "terminationLog": environ.get("R1_TERMINATION_LOG", "/dev/termination-log"),
        },
        "environment",
        "Correct this variable of the pod",
    )
    _check_address(pod.ip)
    if pod.index >= config.nodes:
        raise ConfigError(
            "environment R1_NODE_INDEX", f"{pod.index} is not below nodes = {config.nodes}", "Number pods from 0"
        )
    overrides = {
        name: environ[variable] for name in Limits.model_fields if (variable := f"R1_{name.upper()}_SECONDS") in environ
    }
    limits = _parse(Limits, overrides, "environment R1_*_SECONDS", "Give a positive number of seconds")
    token = _read_token(environ)
    return Settings(
        config=config,
        pod=pod,
        limits=limits,
        token=token,
        key_file=_key_file(environ),
        limits_file=config_path.parent / "limits.json",
        unknown=unknown,
    )


_Model = TypeVar("_Model", bound=_Frozen)


def _parse(model: type[_Model], values: Any, where: str, remedy: str) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        why = str(first["msg"]).removeprefix("Value error, ")
        raise ConfigError(f"{where} {field}".strip(), why, remedy) from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be read ({error.strerror})", "Mount the gang's ConfigMap there or set R1_ENGINE_CONFIG"
        ) from error
    except ValueError as error:
        raise ConfigError(str(path), f"is not JSON ({error})", "Correct the file") from error


def _variable(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise ConfigError(f"environment {name}", "is not set", "Set it in the pod (the downward API has it)")
    return value


def _check_address(ip: str) -> None:
    try:
        ipaddress.ip_address(ip)
    except ValueError as error:
        raise ConfigError("environment POD_IP", f"{ip!r} is not an IP address", "Set it from status.podIP") from error


def _read_token(environ: Mapping[str, str]) -> str:
    if token := environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    path = Path(environ.get("RAY_AUTH_TOKEN_PATH", DEFAULT_TOKEN_PATH))
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            str(path), f"the Ray token cannot be read ({error.strerror})", "Mount the Secret NAME-ray, key token, there"
        ) from error
    if not token:
        raise ConfigError(str(path), "the Ray token is empty", "Put a random string into the Secret NAME-ray")
    return token


def _key_file(environ: Mapping[str, str]) -> Path | None:
    path = Path(environ.get("R1_ENGINE_KEY_PATH") or DEFAULT_KEY_PATH)
    try:
        key = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(
            str(path), f"the engine's key cannot be read ({error.strerror})", "Mount it readable"
        ) from error
    if not key:
        raise ConfigError(str(path), "the engine's key is empty", "Put a random string into the gang's Secret")
    return path
