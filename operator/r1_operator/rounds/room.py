"""Placement as a question: would a gang of the wanted revision have nodes, now, or if another one had gone?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..placement.nodes import Amounts, Node
from ..placement.place import Placement, Request, Shape, Unplaceable, place, room_for


@dataclass(frozen=True, slots=True)
class PlacementRoom:
    """Answers lifecycle's questions by placing for real. `held`: what each of our gangs holds on which node. `ahead`:
    gangs of others that waited first: whatever becomes free, they may take it."""

    shape: Shape
    nodes: tuple[Node, ...]
    held: Mapping[str, Mapping[str, Amounts]]
    ahead: tuple[Request, ...] = ()

    def spare(self) -> int:
        if not self.ahead:
            return room_for(self.shape, self.nodes)
        taken = [node for p in place(self.ahead, self.nodes) if isinstance(p, Placement) for node in p.nodes]
        return room_for(self.shape, self.nodes, taken)

    def after(self, gone: Collection[str], count: int) -> bool:
        nodes: Sequence[Node] = self.nodes
        for gang in gone:
            nodes = _free(nodes, self.held.get(gang, {}))
        return all(isinstance(result, Placement) for result in self._place(nodes, count))

    def quota_after(self, victim: str) -> bool:
        given_back = list(self.held.get(victim, {}).values())
        total: dict[str, Fraction] = {}
        for amounts in given_back:
            for resource, amount in amounts.items():
                total[resource] = total.get(resource, Fraction(0)) + amount
        asked = {resource: amount * self.shape.size for resource, amount in self.shape.requests.items()}
        enough = all(total.get(resource, Fraction(0)) >= amount for resource, amount in asked.items())
        return enough and len(given_back) >= self.shape.size

    def shortage(self) -> str:
        """What it would lack on nodes of which nobody else uses anything of ours: the best case there is."""
        nodes: Sequence[Node] = self.nodes
        for victim in self.held:
            nodes = _free(nodes, self.held[victim])
        result = next(iter(self._place(nodes, 1)))
        return result.message if isinstance(result, Unplaceable) else "lacks nodes of its own, beside those it replaces"

    def _place(self, nodes: Sequence[Node], count: int) -> Sequence[Placement | Unplaceable]:
        requests = [*self.ahead, *(Request(f"new-{number}", self.shape) for number in range(count))]
        return place(requests, nodes)[len(self.ahead) :]


def _free(nodes: Sequence[Node], held: Mapping[str, Amounts]) -> tuple[Node, ...]:
    return tuple(node.without(held[node.name]) if node.name in held else node for node in nodes)
