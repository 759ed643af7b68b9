"""What the nodes lack for a gang: devices, boards, drivers, taints, a network between them, room. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ..api import names
from ..manifests.context import Context
from ..manifests.template import shape_of, template_of
from ..placement.nodes import Node, holder_of, nodes_of, pod_requests
from ..placement.place import Placement, Request, Shape, place
from ..status.wording import some_of
from .looked import Checked, Level, Looked

_PCI = "feature.node.kubernetes.io/pci-10de.present"
"""Node feature discovery's word for a device of NVIDIA."""
_CUDA_MAJOR = ("nvidia.com/cuda.runtime-version.major", "nvidia.com/cuda.runtime.major")
LEAST_CUDA = 12
"""The driver's: SGLang's images carry CUDA 12 and later, and run on a driver of their major version or a later one."""
_RDMA = ("rdma/", "nvidia.com/hostdev", "vpc.amazonaws.com/efa", "openshift.io/", "mellanox.com/")


def node_checks(looked: Looked) -> Iterator[Checked]:
    """In the order in which a node falls out."""
    context = looked.subject.context
    assert context is not None
    shape = shape_of(template_of(context), looked.fabric_label)
    nodes = nodes_of(looked.nodes, looked.pods)
    offering = [n for n in nodes if n.allocatable.get(shape.resource, 0) > 0]
    if not offering:
        yield _no_devices(nodes, shape)
        return
    yield from _boards(offering, shape)
    right = [n for n in offering if _is_right(n, shape)]
    if right:
        yield from (*_counts(right, shape), *_states(right, shape), *_drivers(right), *_fabric(right, context, shape))
    yield from _room(nodes, looked, shape)


def _no_devices(nodes: Sequence[Node], shape: Shape) -> Checked:
    text = f"none of {len(nodes)} nodes offers {shape.resource}"
    cards = [n.name for n in nodes if n.labels.get(_PCI) == "true"]
    if cards:
        text = f"{text}, though {some_of(tuple(cards))} has a card of NVIDIA"
    remedy = "install NVIDIA's GPU operator, or its driver and device plugin, and wait until `r1 nodes` lists them"
    return Checked("nodes", "FAIL", text, remedy)


def _is_right(node: Node, shape: Shape) -> bool:
    product = node.labels.get(names.LABEL_GPU_PRODUCT)
    labels = all(node.labels.get(key) in values for key, values in shape.node_labels.items())
    return labels and (product is None or not shape.products or product in shape.products)


def _boards(nodes: Sequence[Node], shape: Shape) -> Iterator[Checked]:
    right = [n for n in nodes if _is_right(n, shape)]
    found = Counter(n.labels.get(names.LABEL_GPU_PRODUCT, "no label") for n in nodes)
    told = ", ".join(f"{count} × {product}" for product, count in sorted(found.items()))
    parts = [p for p in found if "-SHARED" in p or "-MIG-" in p]
    if right:
        yield Checked("boards", "ok", f"{len(right)} of {len(nodes)} GPU nodes are the planned ones ({told})")
    elif parts:
        text = f"the GPUs are handed out in parts ({told})"
        yield Checked(
            "boards", "FAIL", text, "turn MIG and time slicing off on nodes for R1: a replica takes whole GPUs"
        )
    else:
        text = f"no node has the planned boards ({', '.join(shape.products) or 'labels of the profile'}): {told}"
        yield Checked(
            "boards", "FAIL", text, "set spec.hardware to the profile of these GPUs, or nodeLabels of the profile"
        )
    unnamed = [n.name for n in right if names.LABEL_GPU_PRODUCT not in n.labels]
    if unnamed and shape.products:
        text = f"{some_of(tuple(unnamed))}: no label {names.LABEL_GPU_PRODUCT}; the engines will look themselves"
        yield Checked("boards", "warn", text, "install GPU feature discovery (part of NVIDIA's GPU operator)")


def _counts(nodes: Sequence[Node], shape: Shape) -> Iterator[Checked]:
    devices = shape.requests[shape.resource]
    less = [
        f"{n.name} offers {n.allocatable[shape.resource]}" for n in nodes if n.allocatable[shape.resource] < devices
    ]
    if less:
        text = f"{some_of(tuple(less))} of {devices} {shape.resource}"
        yield Checked("GPUs", "warn", text, "the device plugin leaves out what is unhealthy: see `nvidia-smi` there")


def _states(nodes: Sequence[Node], shape: Shape) -> Iterator[Checked]:
    down = [f"{n.name} ({n.silent_why})" for n in nodes if not n.ready]
    if down:
        yield Checked("nodes", "warn", f"not Ready: {some_of(tuple(down))}", "kubectl describe node shows why")
    cordoned = [n.name for n in nodes if n.unschedulable]
    if cordoned:
        yield Checked("nodes", "warn", f"cordoned: {some_of(tuple(cordoned))}", f"kubectl uncordon {cordoned[0]}")
    tainted: dict[str, list[str]] = {}
    for node in nodes:
        for taint in node.taints:
            own = taint.key.startswith("node.kubernetes.io/")
            if not own and not any(t.covers(taint) for t in shape.tolerations):
                tainted.setdefault(f"{taint.key}={taint.value}:{taint.effect}", []).append(node.name)
    for text, where in sorted(tainted.items()):
        remedy = (
            "tolerate it in spec.engine.podTemplate.spec.tolerations, or for all in the hardware profile (docs/pods.md)"
        )
        yield Checked("taints", "warn", f"{text} on {some_of(tuple(where))} keeps the gang away", remedy)


def _drivers(nodes: Sequence[Node]) -> Iterator[Checked]:
    old = []
    for node in nodes:
        major = next((node.labels[key] for key in _CUDA_MAJOR if key in node.labels), "")
        if major.isdecimal() and int(major) < LEAST_CUDA:
            old.append(f"{node.name} (CUDA {major})")
    if old:
        text = f"the driver is too old for SGLang's images: {some_of(tuple(old))}"
        yield Checked("drivers", "FAIL", text, f"update it to one that runs CUDA {LEAST_CUDA} or later")


def _fabric(nodes: Sequence[Node], context: Context, shape: Shape) -> Iterator[Checked]:
    plan = context.plan
    if plan.nodes_per_replica == 1 or plan.device != "cuda":
        return
    offered = sorted({key for n in nodes for key in n.allocatable if key.startswith(_RDMA) and n.allocatable[key] > 0})
    asked = sorted(key for key in shape.requests if key.startswith(_RDMA))
    host = context.spec.engine.pod_template.spec.host_network or context.spec.engine.security_context.privileged
    tcp = context.spec.engine.fabric.transport == "Tcp"
    if asked or host or tcp:
        how = ", ".join(asked) or ("TCP on purpose" if tcp else "the node's own network")
        yield Checked("fabric", "ok", f"between the nodes: {how}; `FabricReady` tells what the engines find")
        return
    level: Level = "FAIL" if plan.needs_rdma else "warn"
    if offered:
        text = f"the nodes offer {', '.join(offered)}, and the pods ask for none of it: NCCL would go over TCP"
        remedy = f'set spec.engine.resources.limits to {{"{offered[0]}": "1"}}, or in the hardware profile'
    else:
        text = "the nodes offer no RDMA device to pods: NCCL would go over TCP, five to ten times slower"
        remedy = "docs/gpu-nodes.md has a page for each fabric; spec.engine.fabric.transport: Tcp is TCP on purpose"
    yield Checked("fabric", level, text, remedy)


def _room(nodes: Sequence[Node], looked: Looked, shape: Shape) -> Iterator[Checked]:
    (answer,) = place([Request("preflight", shape)], nodes)
    if isinstance(answer, Placement):
        yield Checked("room", "ok", f"a replica would be placed on {', '.join(answer.nodes)} now")
        return
    users = sorted(
        {
            f"{pod['metadata']['namespace']}/{pod['metadata']['name']} on {where}"
            for pod in looked.pods
            if (where := holder_of(pod)) is not None and pod_requests(pod["spec"]).get(shape.resource, 0) > 0
        }
    )
    taken = f"; GPUs are held by {some_of(tuple(users))}" if users else ""
    remedy = (
        "free what the words in brackets name, add nodes, or fewer of them: `r1 plan --nodes N` tells whether it fits"
    )
    yield Checked("room", "FAIL", f"a replica {answer.message}{taken}", remedy)
