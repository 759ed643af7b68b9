"""`spec.gateway`: the router in front of the replicas."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from .fields import ApiModel, LongText, ObjectName
from .names import PORT_GATEWAY


class SecretKey(ApiModel):
    """One key of a Secret in the same namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] = Field(
        default="api-key", description="Key inside the Secret."
    )


class Gateway(ApiModel):
    """The router in front of the replicas."""

    replicas: int = Field(
        default=2, ge=1, le=32, description="Pods of the gateway, on different nodes where there are; 1 = no spare one."
    )
    image: LongText | None = Field(default=None, description="Image of the gateway. Default: the chart's.")
    port: int = Field(default=PORT_GATEWAY, ge=1, le=65_535, description="Port of the gateway's Service.")
    api_key_secret: SecretKey | None = Field(
        default=None, description="Secret that holds the API key clients must send. Absent = no key is asked for."
    )
