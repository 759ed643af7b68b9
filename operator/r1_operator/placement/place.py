"""Gangs × nodes → placements. All of a gang at once or not at all; deterministic.

A gang takes whole free nodes: no other pod holds any of a node's devices. If nodes carry the fabric label, all nodes
of a gang share its value. Among domains the one with the fewest free nodes that suffices is taken, so that large gangs
still find a large domain (best fit). Within it, nodes whose label names the planned board come before those without.
Before all that, nodes against which nothing is held come first: the domain is taken whose best nodes are avoided least.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..api.names import LABEL_GPU_PRODUCT
from .nodes import Amounts, Node, Taint

DEFAULT_FABRIC_LABEL = "r1operator.dev/fabric"
"""Nodes with the same value of this label share a fast network. The operator's flag --fabric-label names another."""


@dataclass(frozen=True, slots=True)
class Toleration:
    """As in a pod's spec; empty effect: every effect; empty key with Exists: everything."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def covers(self, taint: Taint) -> bool:
        """Whether a pod with this toleration may go to a node with `taint`."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.operator == "Exists":
            return not self.key or self.key == taint.key
        return self.key == taint.key and self.value == taint.value


@dataclass(frozen=True, slots=True)
class Shape:
    """What a gang needs: so many nodes, and on each these amounts (the device is in them, whole nodes of it)."""

    size: int
    resource: str
    requests: Amounts
    node_labels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Labels that a node must carry, each with the values that will do."""
    tolerations: tuple[Toleration, ...] = ()
    fabric_label: str = DEFAULT_FABRIC_LABEL
    products: tuple[str, ...] = ()
    """Boards that will do, by the node label LABEL_GPU_PRODUCT; a node without the label may have any. Empty: all."""


@dataclass(frozen=True, slots=True)
class Request:
    """One gang to place. `pins`: member index → node already written into that pod; it cannot be changed any more."""

    gang: str
    shape: Shape
    pins: Mapping[int, str] = field(default_factory=dict)
    reserves: bool = False
    """It has waited for so long that free nodes of its domain are kept for it until they are enough."""


@dataclass(frozen=True, slots=True)
class Placement:
    """`nodes[i]` is for member i."""

    gang: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unplaceable:
    """Why a gang has to wait. `broken_pins`: what is already written into its pods cannot come true; start it anew."""

    gang: str
    message: str
    broken_pins: bool = False


def place(requests: Sequence[Request], nodes: Sequence[Node]) -> tuple[Placement | Unplaceable, ...]:
    """Place gangs in the given order. Each one placed takes its nodes from the later ones; one that does not fit takes
    none. A smaller gang behind one that waits may go first, but not for ever: see `Request.reserves`."""
    taken: set[str] = set()
    kept: dict[str, tuple[str, ...]] = {}
    results: list[Placement | Unplaceable] = []
    # Half-placed gangs come first, whatever their turn: their nodes are not to be given away.
    for request in sorted(requests, key=lambda r: not r.pins):
        result = _place_one(request, nodes, taken)
        if isinstance(result, Placement):
            taken.update(result.nodes)
        elif request.reserves and not kept:
            # For the first of them alone: two that keep nodes from each other would both wait.
            kept[request.gang] = _kept_for(request.shape, nodes, taken)
            taken.update(kept[request.gang])
        results.append(result)
    order = {r.gang: i for i, r in enumerate(requests)}
    return tuple(sorted(results, key=lambda r: order[r.gang]))


def _kept_for(shape: Shape, nodes: Sequence[Node], taken: set[str]) -> tuple[str, ...]:
    """Free nodes of the domain in which a gang is likeliest to find room, if all its nodes together would do at all."""
    could: dict[str, list[str]] = defaultdict(list)
    free: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        domain = node.labels.get(shape.fabric_label, "")
        if _unfit(replace(node, used={}), shape) is None:
            could[domain].append(node.name)
            if node.name not in taken and _unfit(node, shape) is None:
                free[domain].append(node.name)
    big = [domain for domain, names in could.items() if len(names) >= shape.size]
    best = min(big, key=lambda domain: (shape.size - len(free[domain]), domain), default=None)
    return tuple(free[best]) if best is not None else ()


def room_for(shape: Shape, nodes: Sequence[Node], taken: Iterable[str] = ()) -> int:
    """How many gangs of this shape the free nodes could take."""
    used = set(taken)
    domains = Counter(
        n.labels.get(shape.fabric_label, "") for n in nodes if n.name not in used and not _unfit(n, shape)
    )
    return sum(count // shape.size for count in domains.values())


def _place_one(request: Request, nodes: Sequence[Node], taken: set[str]) -> Placement | Unplaceable:
    shape = request.shape
    fit: dict[str, list[str]] = defaultdict(list)
    unfit: list[str] = []
    for node in nodes:
        reason = "promised to a replica before it" if node.name in taken else _unfit(node, shape)
        if reason is None:
            fit[node.labels.get(shape.fabric_label, "")].append(node.name)
        else:
            unfit.append(reason)
    pinned = set(request.pins.values())
    if request.pins:
        free = {name for names in fit.values() for name in names}
        if len(pinned) < len(request.pins) or not pinned <= free:
            lost = ", ".join(sorted(pinned - free)) or "one node twice"
            return Unplaceable(request.gang, f"its pods were promised {lost}, which is no longer free", True)
        fit = {d: names for d, names in fit.items() if pinned <= set(names)}
    big = {d: names for d, names in fit.items() if len(names) >= shape.size}
    if not big:
        return Unplaceable(request.gang, _shortage(shape, fit, unfit, len(nodes)), bool(request.pins))
    avoid = {n.name: n.avoid for n in nodes if n.avoid}
    _, names = min(big.items(), key=lambda item: (_avoided(item[1], pinned, shape, avoid), len(item[1]), item[0]))
    unnamed = {n.name for n in nodes if shape.products and LABEL_GPU_PRODUCT not in n.labels}
    rest = iter(sorted(set(names) - pinned, key=lambda name: (avoid.get(name, 0), name in unnamed, name)))
    return Placement(request.gang, tuple(request.pins.get(i) or next(rest) for i in range(shape.size)))


def _avoided(names: Sequence[str], pinned: set[str], shape: Shape, avoid: Mapping[str, int]) -> int:
    """What is held against the best nodes that a domain has for a gang."""
    if not avoid:
        return 0
    return sum(sorted(avoid.get(name, 0) for name in names if name not in pinned)[: shape.size - len(pinned)])


def _unfit(node: Node, shape: Shape) -> str | None:
    """Why this node cannot be one of the gang's, or None. The words are counted in `_shortage`."""
    if node.allocatable.get(shape.resource, 0) < shape.requests[shape.resource]:
        return f"fewer than {shape.requests[shape.resource]} {shape.resource}"
    if any(node.labels.get(key) not in values for key, values in shape.node_labels.items()):
        return "other hardware (node labels)"
    product = node.labels.get(LABEL_GPU_PRODUCT)
    if shape.products and product is not None and product not in shape.products:
        return f"other hardware ({LABEL_GPU_PRODUCT} {product})"  # also -SHARED and -MIG-…: a part of a GPU
    if not node.ready:
        return "not Ready"
    if node.unschedulable:
        return "cordoned"
    taint = next((t for t in node.taints if not any(x.covers(t) for x in shape.tolerations)), None)
    if taint is not None:
        return f"taint {taint.key}"
    if node.used.get(shape.resource, 0) > 0:
        return f"{shape.resource} in use"
    for resource, amount in shape.requests.items():
        if node.free(resource) < amount:
            return f"too little {resource}"
    return None


def _shortage(shape: Shape, fit: Mapping[str, Sequence[str]], unfit: Sequence[str], total: int) -> str:
    """What is missing, in words that change when the answer does, not with each pod of the cluster that comes or goes:
    reasons without counts, and only how many nodes of the right kind are free."""
    free = sum(len(names) for names in fit.values())
    devices = shape.requests[shape.resource]
    need = f"needs {shape.size} whole free node{'s' * (shape.size > 1)} with {devices} {shape.resource} each"
    if free >= shape.size:
        largest = max(len(names) for names in fit.values())
        return f"{need} in one domain of {shape.fabric_label}: {free} are free, at most {largest} of them in one domain"
    if total == 0:
        return f"{need}: the cluster has no node"
    # The reasons of the nodes that come nearest: one of other hardware never helps, however many there are.
    reasons = sorted({reason for reason in unfit if not reason.startswith(_NEVER)} or set(unfit))
    return f"{need}: {free} {'is' if free == 1 else 'are'} free" + (
        f" (others: {', '.join(reasons)})" if reasons else ""
    )


_NEVER = ("fewer than", "other hardware")
