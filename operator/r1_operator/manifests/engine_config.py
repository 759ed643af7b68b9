"""`engine.json` and the ConfigMap of one gang that carries it (contracts.md)."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from ..api import names
from .context import Context


def _fabric(context: Context) -> dict[str, Any] | None:
    """What the engine is to find between the nodes; None where nothing goes over it."""
    plan, transport = context.plan, context.spec.engine.fabric.transport
    if plan.nodes_per_replica == 1 or plan.device != "cuda":
        return None
    return {"transport": transport, "gbitsPerNode": plan.network_gbits_per_node, "needsRdma": plan.needs_rdma}


def engine_config(context: Context, replica: int, attempt: int) -> dict[str, Any]:
    """What the engine of one gang is told, the same for each of its pods."""
    plan, spec = context.plan, context.spec
    own = {variable.name for variable in spec.engine.env}
    return {
        "deployment": context.name,
        "replica": replica,
        "attempt": attempt,
        "nodes": plan.nodes_per_replica,
        "gpusPerNode": plan.gpus_per_node,
        "device": plan.device,
        "headAddress": names.pod_host(context.name, context.namespace, replica, attempt, 0),
        "servedName": spec.model.served_as,
        "modelPath": posixpath.normpath(posixpath.join(names.PATH_MODELS, spec.model.weights.path)),
        "engineArgs": list(plan.engine_args),
        # The user's variables stand in the pod; what they set, the plan does not set again.
        "env": {key: value for key, value in plan.env if key not in own},
        # The ranks that are probed one by one: attention groups, or whole copies of a small model.
        "attentionDataParallel": plan.kv_ranks,
        "startSeconds": spec.startup.seconds,
        "stallSeconds": spec.startup.may_stand_still,
        "drainSeconds": spec.drain.seconds,
        "expected": _expected(context),
        "fabric": _fabric(context),
        **_kernels(context),
        "ports": {
            "http": names.PORT_ENGINE_HTTP,
            "agent": names.PORT_ENGINE_AGENT,
            "ray": names.PORT_RAY,
            "dist": names.PORT_DIST,
        },
    }


def _kernels(context: Context) -> dict[str, str]:
    """Where kernels are kept: they fit one kind of GPU and what one image compiles. Nothing without a cache."""
    if context.spec.engine.cache is None:
        return {}
    image = context.engine_image
    told = re.sub(r"[^A-Za-z0-9._-]+", "-", image.rsplit("/", 1)[-1])[:63]
    folder = f"{context.spec.hardware}/{told}-{names.content_hash(image, 8)}"
    return {"kernelCache": f"{names.PATH_KERNELS}/{folder}"}


def _expected(context: Context) -> dict[str, Any]:
    """What was planned for, so that the engine may compare it with what it finds."""
    hardware, model = context.plan.expected.hardware, context.plan.expected.model
    told: dict[str, Any] = {
        "model": {
            "name": model.name,
            "field": "spec.model.baseModel" if context.spec.model.base_model else "spec.model.name",
            "architecture": model.architecture,
            "quantization": model.quantization,
            "weightBlock": None if model.weight_block is None else list(model.weight_block),
            "figures": dict(model.figures),
        }
    }
    if hardware is not None:
        told["hardware"] = {
            "profile": hardware.profile,
            "gpus": hardware.gpus,
            "products": list(hardware.products),
            "memoryMib": hardware.memory_mib,
            "computeCapability": hardware.compute_capability,
        }
    return told


def products_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Boards that a gang with this engine.json was planned for; none if it was written before they were told."""
    hardware = (config.get("expected") or {}).get("hardware") or {}
    return tuple(hardware.get("products") or ())


def attention_ranks(config_map: Mapping[str, Any] | None) -> int | None:
    """Attention-DP ranks of the gang whose config map this is; None if it is gone or not as we wrote it."""
    try:
        return int(json.loads((config_map or {})["data"][names.ENGINE_CONFIG_KEY])["attentionDataParallel"])
    except (KeyError, TypeError, ValueError):
        return None
