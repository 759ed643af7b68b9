"""`spec.engine.fabric`: what the nodes of a replica talk over."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .fields import ApiModel

Transport = Literal["Rdma", "Tcp"]


class EngineFabric(ApiModel):
    """The network between the nodes of a replica."""

    transport: Transport | None = Field(
        default=None,
        description="Rdma: a replica whose nodes have none does not start. Tcp: on purpose, several to tens of times "
        "slower. Absent: RDMA where the hardware profile has a fabric; a replica that finds none starts if its plan "
        "can do without, and the condition FabricReady says so.",
    )
