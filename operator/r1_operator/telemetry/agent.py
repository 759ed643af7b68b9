"""The agent of an engine pod: its stage, and the order to drain (docs/design/contracts.md)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from r1_operator.api.names import PORT_ENGINE_AGENT, host
from r1_operator.rounds.facts import Served
from r1_operator.status.observation import FabricReport
from r1_operator.telemetry.http import Failure, ask_all, fetch_json


@dataclass(frozen=True, slots=True)
class NodeStage:
    """One node of the gang as node 0 knows it; `name` is the Kubernetes node's."""

    index: int
    name: str
    stage: str
    message: str


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """`GET /status`. `since` in seconds since the epoch; `timings`: seconds of each finished stage of the start."""

    stage: str
    message: str
    since: float
    node_index: int
    nodes: tuple[NodeStage, ...]
    in_flight: int
    timings: Mapping[str, float]
    sick_gpus: tuple[str, ...]
    """This pod's GPUs that NVML calls unhealthy, each with the reason; empty also where there is no NVML."""
    progress_at: float | None = None
    """When the start last went forward, in seconds since the epoch; None of an engine that does not tell."""
    fabric: FabricReport | None = None
    """The network between the gang's nodes; None where there is none, or of an engine that does not tell."""

    served: Served | None = None
    """Requests since the start; None of a node that serves none, or of an engine that does not tell."""

    @property
    def start(self) -> Mapping[str, float]:
        """What the whole start took, by stage; empty until it is over."""
        return self.timings if self.stage in ("Ready", "Draining") else {}


def parse_status(answer: Mapping[str, Any]) -> AgentStatus | Failure:
    """The status in an agent's answer."""
    try:
        return AgentStatus(
            stage=str(answer["stage"]),
            message=str(answer["message"]),
            since=float(answer["since"]),
            node_index=int(answer["nodeIndex"]),
            nodes=tuple(
                NodeStage(int(node["index"]), str(node["name"]), str(node["stage"]), str(node["message"]))
                for node in answer["nodes"]
            ),
            in_flight=int(answer["inFlight"]),
            timings={str(stage): float(seconds) for stage, seconds in answer["timings"].items()},
            sick_gpus=tuple(_sick(device) for device in answer["gpus"]["devices"] if not device["healthy"]),
            progress_at=None if (at := answer.get("progressAt")) is None else float(at),
            fabric=_fabric(answer.get("fabric")),
            served=_served(answer.get("served")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Failure(f"/status: an answer of another version of the engine: {type(error).__name__}: {error}")


def _served(tally: Mapping[str, Any] | None) -> Served | None:
    if tally is None:
        return None
    begun = int(tally["begun"])
    mean = 1000 * float(tally["firstByteSeconds"]) / begun if begun else None
    return Served(int(tally["requests"]), int(tally["failed"]), mean)


def _fabric(report: Mapping[str, Any] | None) -> FabricReport | None:
    if report is None:
        return None
    ready = report["ready"]
    return FabricReport(ready if isinstance(ready, bool) else None, str(report["reason"]), str(report["message"]))


def _sick(device: Mapping[str, Any]) -> str:
    errors = device.get("uncorrectedEccErrors")  # an engine that says nothing else counts these as sickness
    why = device.get("message") or (f"{errors} uncorrected ECC errors" if errors else "no reason given")
    return f"GPU {device['index']}: {why}"


async def scrape_status(
    session: aiohttp.ClientSession, addresses: Collection[str], *, port: int = PORT_ENGINE_AGENT
) -> dict[str, AgentStatus | Failure]:
    """Status of the agents at these addresses, all at once. Never raises for an engine's fault."""

    async def one(address: str) -> AgentStatus | Failure:
        answer = await fetch_json(session, "GET", f"http://{host(address)}:{port}/status")
        return answer if isinstance(answer, Failure) else parse_status(answer)

    return await ask_all(addresses, one)


async def order_drain(
    session: aiohttp.ClientSession, address: str, *, token: str, port: int = PORT_ENGINE_AGENT
) -> Failure | None:
    """Tell node 0 to take no new requests; those in flight go on. Idempotent. None when it has heard.

    `token`: that of the gang. The operator itself ends pods, which drains them, and knows no gang's token.
    """
    headers = {"Authorization": f"Bearer {token}"}
    answer = await fetch_json(session, "POST", f"http://{host(address)}:{port}/drain", headers=headers)
    return answer if isinstance(answer, Failure) else None
