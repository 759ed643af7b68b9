"""What the controller needs of engines and gateways. `adapters.py` meets it with r1_operator.telemetry."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..api.types import CanaryQuestion
from ..autoscaling.window import ReplicaLoad
from ..rounds.facts import Served
from ..status.observation import FabricReport
from ..telemetry.gateway import SyncResult, Worker
from ..telemetry.http import Failure


@dataclass(frozen=True, slots=True)
class AgentReading:
    """`GET /status` of an engine pod (contracts.md): the gang's as far as node 0 is asked, but its own node's GPUs.
    `start`: what its whole start took, in seconds by stage, once ready. `progress_at`: when its start last went forward
    (unix seconds of its own clock); `fabric`: the network between the gang's nodes; None = it does not say."""

    stage: str
    message: str
    start: Mapping[str, float] = field(default_factory=dict)
    sick_gpus: tuple[str, ...] = ()
    progress_at: float | None = None
    fabric: FabricReport | None = None
    served: Served | None = None


class Engines(Protocol):
    """Reads engines by pod address. Never raises for an engine's fault."""

    async def readings(self, addresses: Collection[str]) -> Mapping[str, AgentReading | Failure]:
        """Agents' status."""

    async def loads(self, ranks: Mapping[str, int | None]) -> Mapping[str, ReplicaLoad | Failure]:
        """Load over all ranks of the replicas whose node 0 is at these addresses.

        ranks: address → attention-DP ranks that must report (None: unknown). If one does not, that is a Failure.
        """

    async def ask(self, url: str, key: str, model: str, question: CanaryQuestion) -> str | Failure:
        """One user message to the replica at `url` → the answer, without its chain of thought."""


class Gateways(Protocol):
    """Feeds gateway pods by address. Never raises for a gateway's fault."""

    async def sync(
        self,
        addresses: Collection[str],
        wanted: frozenset[Worker],
        token: str,
        epoch: int | None = None,
        retry_after: int | None = None,
    ) -> SyncResult:
        """Make each gateway pod route to exactly `wanted`, unless an operator of a greater epoch spoke to it.

        retry_after: where replicas may sleep, in how many seconds one would be ready.
        """
