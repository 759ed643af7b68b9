"""What one stand-in pod was told: engine.json, the pod's environment, and the knobs R1_STANDIN_*."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIGURATION = 78


class ConfigurationError(Exception):
    """The pod cannot run as configured. `reason` is CamelCase, the message says what, where and the remedy."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Settings:
    """Everything fixed at start. Times in seconds, rates in tokens per second."""

    node_index: int
    nodes: int
    node_name: str
    address: str
    head_address: str
    replica: int
    attempt: int
    served_name: str
    model_path: str
    ranks: int
    ports: Mapping[str, int]
    limits_file: Path
    start_limit: float
    stall_limit: float
    drain_limit: float
    ray_seconds: float
    weights_seconds: float
    warmup_seconds: float
    kv_tokens_per_rank: int
    max_running_per_rank: int
    tokens_per_second_per_request: float
    tokens_per_second_per_rank: float
    thought_tokens: int
    answer_tokens: int
    lease_seconds: float
    hang_seconds: float
    fault: Mapping[str, Any] | None
    ray_token: str
    key_file: Path
    termination_log: Path
    kernel_cache: Path | None

    def stage_seconds(self) -> dict[str, float]:
        return {"Ray": self.ray_seconds, "Weights": self.weights_seconds, "WarmUp": self.warmup_seconds}


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read /etc/r1/engine.json (under $R1_STANDIN_ROOT if set) and the environment; engine.json's "env" wins."""
    root = Path(environment.get("R1_STANDIN_ROOT", "/"))
    file = root / "etc/r1/engine.json"
    try:
        document = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError("EngineConfigUnreadable", f"{file}: {error}; is the ConfigMap mounted?") from error
    env = {**environment, **{str(k): str(v) for k, v in document.get("env", {}).items()}}
    try:
        return _settings(root, document, env)
    except KeyError as error:
        raise ConfigurationError("EngineConfigInvalid", f"{file}: field {error} is missing") from error
    except ValueError as error:
        raise ConfigurationError("EngineConfigInvalid", f"{file} or environment: {error}") from error


def _settings(root: Path, document: Mapping[str, Any], env: Mapping[str, str]) -> Settings:
    def seconds(name: str, default: float) -> float:
        return float(env.get(f"R1_STANDIN_{name}", default))

    args: Sequence[str] = document["engineArgs"]
    ranks = int(document["attentionDataParallel"])
    # R1_STANDIN_START_SECONDS is the whole start, split over the stages; a stage's own knob wins.
    start = seconds("START_SECONDS", 0.6)
    max_running = int(env.get("R1_STANDIN_MAX_RUNNING") or _argument(args, "--max-running-requests") or 64)
    return Settings(
        node_index=int(env["R1_NODE_INDEX"]),
        nodes=int(document["nodes"]),
        node_name=env.get("NODE_NAME", f"node-{env['R1_NODE_INDEX']}"),
        address=env.get("POD_IP", "0.0.0.0"),
        head_address=document["headAddress"],
        replica=int(document["replica"]),
        attempt=int(document["attempt"]),
        served_name=document["servedName"],
        model_path=_weights(root, document["modelPath"], env),
        ranks=ranks,
        ports=document["ports"],
        limits_file=root / "etc/r1/limits.json",
        start_limit=float(document["startSeconds"]),
        stall_limit=float(document.get("stallSeconds") or document["startSeconds"]),
        drain_limit=float(document["drainSeconds"]),
        ray_seconds=seconds("RAY_SECONDS", start / 3),
        weights_seconds=seconds("WEIGHTS_SECONDS", start / 3),
        warmup_seconds=seconds("WARMUP_SECONDS", start / 3),
        kv_tokens_per_rank=int(env.get("R1_STANDIN_KV_TOKENS") or _argument(args, "--max-total-tokens") or 20_000),
        max_running_per_rank=max(1, max_running // ranks),  # SGLang divides it among the attention ranks
        tokens_per_second_per_request=seconds("TOKENS_PER_SECOND", 50),
        tokens_per_second_per_rank=seconds("RANK_TOKENS_PER_SECOND", 1000),
        thought_tokens=int(env.get("R1_STANDIN_THOUGHT_TOKENS", 8)),
        answer_tokens=int(env.get("R1_STANDIN_ANSWER_TOKENS", 8)),
        lease_seconds=seconds("LEASE_SECONDS", 15),
        hang_seconds=seconds("HANG_SECONDS", 10),
        fault=_start_fault(env, int(document["attempt"])),
        ray_token=_ray_token(root, env),
        key_file=root / "var/run/r1/engine-key",
        termination_log=root / "dev/termination-log",
        kernel_cache=root / document["kernelCache"].lstrip("/") if document.get("kernelCache") else None,
    )


def _argument(args: Sequence[str], name: str) -> str | None:
    for position, arg in enumerate(args):
        if arg == name and position + 1 < len(args):
            return args[position + 1]
        if arg.startswith(f"{name}="):
            return arg.partition("=")[2]
    return None


def _weights(root: Path, path: str, env: Mapping[str, str]) -> str:
    if env.get("R1_STANDIN_CHECK_WEIGHTS", "1") == "0":
        return path
    directory = root / path.lstrip("/")
    if not directory.is_dir():
        raise ConfigurationError(
            "WeightsNotFound", f"{path} is no directory; check spec.model.weights and what the volume holds"
        )
    if not (directory / "config.json").is_file():
        raise ConfigurationError(
            "WeightsNotFound", f"{path}/config.json is missing; spec.model.weights must hold the model's files"
        )
    if not any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise ConfigurationError(
            "TokenizerNotFound", f"{path}/tokenizer.json is missing; copy the tokenizer files beside the weights"
        )
    return path


def _ray_token(root: Path, env: Mapping[str, str]) -> str:
    file = root / "var/run/r1/ray-token"
    if file.is_file():
        return file.read_text().strip()
    if env.get("R1_STANDIN_CHECK_RAY_TOKEN", "1") == "0":
        return ""
    raise ConfigurationError("RayTokenMissing", f"{file} is missing; the Secret with Ray's token must be mounted there")


def _start_fault(env: Mapping[str, str], attempt: int) -> Mapping[str, Any] | None:
    """R1_STANDIN_FAULT: a fault as JSON, optionally only for {"node": i}, {"replica": r}, {"attempts": [0, 1]}."""
    text = env.get("R1_STANDIN_FAULT")
    if not text:
        return None
    fault: Mapping[str, Any] = json.loads(text)
    if "attempts" in fault and attempt not in fault["attempts"]:
        return None
    if "node" in fault and int(fault["node"]) != int(env["R1_NODE_INDEX"]):
        return None
    return fault


def limits_now(settings: Settings) -> tuple[float, float, float]:
    """Of the start, of its standing still, of a drain: as limits.json says now, else as engine.json said."""
    try:
        said = json.loads(settings.limits_file.read_text())
        return float(said["startSeconds"]), float(said["stallSeconds"]), float(said["drainSeconds"])
    except (OSError, ValueError, KeyError):
        return settings.start_limit, settings.stall_limit, settings.drain_limit
