"""Every name, label, annotation, port and path that two parts of the project must agree on.

Pure: constants and functions from values to strings. `docs/design/contracts.md` is the prose beside it.

Kubernetes allows 63 characters for a label value, a Service name and a pod's hostname. The longest name derived here
is a pod's, `NAME-<replica>-<attempt>-<node>`, so `MAX_NAME_LENGTH` keeps 23 characters for that suffix and a longer
resource name is refused by the schema (`rules.py`): a shortened name would hide which resource a pod belongs to.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Final

# --- the custom resource ---------------------------------------------------------------------------------------------
GROUP: Final = "r1operator.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "r1operator.dev/v1alpha1"
KIND: Final = "R1Deployment"
PLURAL: Final = "r1deployments"
SINGULAR: Final = "r1deployment"
SHORT_NAMES: Final = ("r1d",)
CATEGORIES: Final = ("r1",)
CRD_NAME: Final = f"{PLURAL}.{GROUP}"

# --- who writes ------------------------------------------------------------------------------------------------------
MANAGED_BY: Final = "r1-operator"
FIELD_MANAGER: Final = "r1-operator"
LEASE_NAME: Final = "r1-operator"
MASTER_SECRET: Final = "r1-operator-keys"
"""In the operator's own namespace: what all its tokens are derived from."""
MASTER_KEY_KEY: Final = "master"
NODES_CONFIG_MAP: Final = "r1-operator-nodes"
"""In the operator's own namespace: what is held against nodes, an entry each."""

# --- labels ----------------------------------------------------------------------------------------------------------
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_REPLICA: Final = f"{GROUP}/replica"
LABEL_GANG: Final = f"{GROUP}/gang"
LABEL_NODE_INDEX: Final = f"{GROUP}/node-index"
LABEL_REVISION: Final = f"{GROUP}/revision"
LABEL_ASKED: Final = f"{GROUP}/asked"
"""On the ConfigMap of a revision: hash of what of the spec it was made of."""
LABEL_OWNER: Final = f"{GROUP}/owner"
"""On a gateway pod: uid of the R1Deployment it serves for, which owns its ReplicaSet's Deployment. In the Service's
selector: a pod that merely carries our other labels gets none of its requests."""
LABEL_NODES: Final = f"{GROUP}/nodes"
"""How many pods the gang has, so that a gang can be judged without its ConfigMap."""

COMPONENT_ENGINE: Final = "engine"
COMPONENT_GATEWAY: Final = "gateway"

# --- annotations -----------------------------------------------------------------------------------------------------
ANNOTATION_CONTENT_HASH: Final = f"{GROUP}/content-hash"
"""On an object we apply: hash of what we applied, so that an unchanged object costs no write."""

# --- scheduling ------------------------------------------------------------------------------------------------------
SCHEDULING_GATE: Final = f"{GROUP}/gang"
"""Every pod of a gang is created with this gate; all gates of a gang are lifted together."""
LABEL_HOSTNAME: Final = "kubernetes.io/hostname"
DEFAULT_GPU_RESOURCE: Final = "nvidia.com/gpu"
LABEL_GPU_PRODUCT: Final = "nvidia.com/gpu.product"
"""Put on nodes by NVIDIA's GPU feature discovery: NVML's name of the board with hyphens for spaces."""

# --- containers and ports --------------------------------------------------------------------------------------------
CONTAINER_ENGINE: Final = "engine"
CONTAINER_GATEWAY: Final = "gateway"
PORT_ENGINE_HTTP: Final = 30000
PORT_ENGINE_AGENT: Final = 8500
PORT_RAY: Final = 6379
PORT_DIST: Final = 25000
PORT_GATEWAY: Final = 8000
PORT_GATEWAY_ADMIN: Final = 8001
"""Where the operator feeds a gateway pod with replicas, by a token whose hash gateway.json has. Not in its Service."""
PORT_GATEWAY_METRICS: Final = 29000
PORT_OPERATOR: Final = 8080
"""The operator's own /healthz, /readyz and /metrics."""

# --- paths inside an engine pod --------------------------------------------------------------------------------------
PATH_MODELS: Final = "/models"
PATH_ENGINE_CONFIG_DIR: Final = "/etc/r1"
ENGINE_CONFIG_KEY: Final = "engine.json"
LIMITS_KEY: Final = "limits.json"
"""Beside engine.json: the limits of time of the moment, which the engine reads again and again."""
PATH_RAY_TOKEN_DIR: Final = "/var/run/r1"
RAY_TOKEN_FILE: Final = "ray-token"
RAY_TOKEN_KEY: Final = "token"
"""Key in the Secret; the volume projects it as RAY_TOKEN_FILE."""
ENGINE_KEY_FILE: Final = "engine-key"
ENGINE_KEY_KEY: Final = "http-key"
"""Key in the same Secret: what the engines' HTTP port asks for. Engines and gateways mount it as ENGINE_KEY_FILE."""
PATH_KERNELS: Final = "/var/cache/r1"
"""Where a cache of compiled kernels is mounted."""
PATH_SHARED_MEMORY: Final = "/dev/shm"
PATH_TMP: Final = "/tmp"
PATH_TERMINATION_LOG: Final = "/dev/termination-log"

# --- paths and environment of a gateway pod --------------------------------------------------------------------------
PATH_GATEWAY_CONFIG_DIR: Final = "/etc/r1"
GATEWAY_CONFIG_KEY: Final = "gateway.json"
PATH_GATEWAY_KEY_DIR: Final = "/var/run/r1"
ENV_GATEWAY_API_KEY: Final = "R1_API_KEY"

# --- environment of an engine pod ------------------------------------------------------------------------------------
ENV_POD_NAME: Final = "POD_NAME"
ENV_POD_NAMESPACE: Final = "POD_NAMESPACE"
ENV_POD_IP: Final = "POD_IP"
ENV_NODE_NAME: Final = "NODE_NAME"
ENV_NODE_INDEX: Final = "R1_NODE_INDEX"
RESERVED_ENV: Final = (
    ENV_POD_NAME,
    ENV_POD_NAMESPACE,
    ENV_POD_IP,
    ENV_NODE_NAME,
    ENV_NODE_INDEX,
    "R1_ENGINE_CONFIG",
    "R1_ENGINE_KEY_PATH",
    "R1_RUN_DIR",
    "R1_TERMINATION_LOG",
    "CUDA_VISIBLE_DEVICES",
    "RAY_ADDRESS",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
)
"""Set by the operator or the engine; a value from the user would split the gang."""

# --- what users' pod templates may not take ---------------------------------------------------------------------------
RESERVED_LABELS: Final = (LABEL_MANAGED_BY, LABEL_INSTANCE, LABEL_COMPONENT)
"""With everything below our own domain."""
RESERVED_VOLUMES: Final = ("config", "kernels", "keys", "models", "shm", "tmp")
RESERVED_MOUNTS: Final = (
    PATH_MODELS,
    PATH_ENGINE_CONFIG_DIR,
    PATH_RAY_TOKEN_DIR,
    "/run/r1",
    PATH_KERNELS,
    PATH_TERMINATION_LOG,
)
"""Nothing of a user's is mounted there or below."""
SHARED_MOUNTS: Final = (PATH_TMP, PATH_SHARED_MEMORY, "/dev", "/etc", "/run", "/var", "/var/run")
"""Nothing of a user's takes the place of these, but it may lie below."""

# --- engine arguments ------------------------------------------------------------------------------------------------
ENGINE_OWNED_FLAGS: Final = (
    "--api-key",
    "--dist-init-addr",
    "--enable-metrics",
    "--host",
    "--model",
    "--model-path",
    "--nccl-init-addr",
    "--nnodes",
    "--node-rank",
    "--port",
    "--served-model-name",
    "--use-ray",
    "--watchdog-timeout",
)
"""What the engine passes to SGLang itself (with SGLang's aliases of the same options)."""
PLAN_OWNED_FLAGS: Final = (
    "--attn-dp-size",
    "--chunked-prefill-size",
    "--context-length",
    "--data-parallel-size",
    "--dp",
    "--dp-size",
    "--enable-dp-attention",
    "--ep",
    "--ep-num-redundant-experts",
    "--ep-size",
    "--expert-parallel-size",
    "--max-running-requests",
    "--mem-fraction-static",
    "--moe-a2a-backend",
    "--tensor-parallel-size",
    "--tp",
    "--tp-size",
)
"""What spec.topology and spec.limits say: as bare arguments they would escape the planner's arithmetic."""

# --- length limits ---------------------------------------------------------------------------------------------------
MAX_LABEL_LENGTH: Final = 63
MAX_REPLICAS: Final = 999
MAX_SPARES: Final = 32
MAX_NODES_PER_REPLICA: Final = 64
MAX_ATTEMPT: Final = 10**9
MAX_NAME_LENGTH: Final = 40
NAME_PATTERN: Final = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""A DNS-1035 label: the name becomes part of Service and host names, which allow no dot and no leading digit."""


def engine_service(name: str) -> str:
    """Headless Service that gives each gang pod its DNS name."""
    return f"{name}-engine"


def gateway_name(name: str) -> str:
    """Deployment, Service and ConfigMap of the gateway."""
    return f"{name}-gateway"


def engine_secret(name: str, uid: str) -> str:
    """Secret of all gangs of the resource with this uid: nobody else's has its name."""
    return f"{name}-engine-{content_hash(uid)}"


def gang_name(name: str, replica: int, attempt: int) -> str:
    """One start of one replica; also the name of its engine ConfigMap. Never that of two at a time; a replica that was
    scaled away and comes again begins at attempt 0."""
    return f"{name}-{replica}-{attempt}"


def engine_config_map(name: str, replica: int, attempt: int) -> str:
    """ConfigMap that holds `engine.json` of one gang."""
    return gang_name(name, replica, attempt)


def revision_config_map(name: str, revision: str) -> str:
    """ConfigMap that keeps what the pods of one revision are made from. No gang's: a revision is no number."""
    return f"{name}-revision-{revision}"


def engine_url(address: str) -> str:
    """Where node 0 of a gang serves HTTP, as the gateway routes to it."""
    return f"http://{host(address)}:{PORT_ENGINE_HTTP}"


def host(address: str) -> str:
    """An IP address as it stands in a URL: IPv6 ones in brackets."""
    return f"[{address}]" if ":" in address else address


def pod_name(name: str, replica: int, attempt: int, node: int) -> str:
    """Pod of node `node` of a gang; its hostname as well."""
    return f"{gang_name(name, replica, attempt)}-{node}"


def pod_host(name: str, namespace: str, replica: int, attempt: int, node: int) -> str:
    """DNS name of a gang's pod, e.g. `r1-0-3-0.r1-engine.ns.svc`. The cluster's domain, whatever it is, is added by the
    search list of every pod, on the node's network as well (ClusterFirstWithHostNet)."""
    return f"{pod_name(name, replica, attempt, node)}.{engine_service(name)}.{namespace}.svc"


def base_labels(name: str, component: str) -> dict[str, str]:
    """Labels on everything the operator makes for one R1Deployment."""
    return {LABEL_MANAGED_BY: MANAGED_BY, LABEL_INSTANCE: name, LABEL_COMPONENT: component}


def engine_pod_labels(name: str, replica: int, attempt: int, node: int, revision: str) -> dict[str, str]:
    """Labels of one engine pod."""
    return base_labels(name, COMPONENT_ENGINE) | {
        LABEL_REPLICA: str(replica),
        LABEL_GANG: gang_name(name, replica, attempt),
        LABEL_NODE_INDEX: str(node),
        LABEL_REVISION: revision,
    }


def gateway_pod_labels(name: str, uid: str) -> dict[str, str]:
    """Labels of one gateway pod of the R1Deployment with this uid, and what selects them."""
    return base_labels(name, COMPONENT_GATEWAY) | {LABEL_OWNER: uid}


def selector(labels: Mapping[str, str]) -> str:
    """A label selector string, keys sorted: `a=1,b=2`."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def engine_selector(name: str) -> str:
    """Selects one engine pod a replica, node 0's: `status.selector` of the scale subresource. A HorizontalPodAutoscaler
    multiplies by the pods that it finds (kubernetes 1.37, replica_calculator.go:256), so all of them would be too many.
    `base_labels` are those of all engine pods."""
    return selector(base_labels(name, COMPONENT_ENGINE) | {LABEL_NODE_INDEX: "0"})


def attempt_of(gang: str) -> int:
    """Attempt number of a gang name. Raises ValueError if `gang` is not one."""
    return int(_gang_parts(gang)[2])


def replica_of(gang: str) -> int:
    """Replica index of a gang name. Raises ValueError if `gang` is not one."""
    return int(_gang_parts(gang)[1])


def _gang_parts(gang: str) -> tuple[str, str, str]:
    match = re.fullmatch(r"(.+)-(\d+)-(\d+)", gang)
    if match is None:
        raise ValueError(f"{gang!r} is not a gang name: expected <resource>-<replica>-<attempt>")
    return match[1], match[2], match[3]


def content_hash(content: object, length: int = 10) -> str:
    """Short hex hash of any JSON value, independent of key order; fits a label value."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]
