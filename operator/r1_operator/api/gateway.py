"""`spec.gateway`: the router in front of the replicas."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .fields import ApiModel, LongText, ObjectName, Quantity, ShortText
from .names import PORT_GATEWAY
from .pod_template import AnnotationValue, ConfigKey, PodTemplate, PullPolicy


class SecretKey(ApiModel):
    """One key of a Secret in the same namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: ConfigKey = Field(default="api-key", description="Key inside the Secret.")


class GatewayResources(ApiModel):
    """Resources of one gateway pod. What is absent has the operator's default."""

    requests: dict[ShortText, Quantity] = Field(
        default_factory=dict, max_length=8, description="Requests. Default: cpu 100m, memory 256Mi."
    )
    limits: dict[ShortText, Quantity] = Field(
        default_factory=dict, max_length=8, description="Limits. Default: memory 2Gi."
    )


class GatewayService(ApiModel):
    """The Service that users' requests come to."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(
        default="ClusterIP", description="How the Service is reached."
    )
    annotations: dict[ShortText, AnnotationValue] = Field(
        default_factory=dict, max_length=32, description="Annotations, e.g. for a cloud's load balancer."
    )


class Gateway(ApiModel):
    """The router in front of the replicas."""

    replicas: int = Field(
        default=2, ge=1, le=32, description="Pods of the gateway, on different nodes where there are; 1 = no spare one."
    )
    image: LongText | None = Field(default=None, description="Image of the gateway. Default: the chart's.")
    image_pull_policy: PullPolicy | None = Field(
        default=None, description="When the image is pulled. Default: the chart's images.pullPolicy."
    )
    port: int = Field(default=PORT_GATEWAY, ge=1, le=65_535, description="Port of the gateway's Service.")
    api_key_secret: SecretKey | None = Field(
        default=None, description="Secret that holds the API key clients must send. Absent = no key is asked for."
    )
    resources: GatewayResources = Field(
        default_factory=GatewayResources, description="Processor and memory of one gateway pod."
    )
    service: GatewayService = Field(default_factory=GatewayService, description="The gateway's Service.")
    pod_template: PodTemplate = Field(
        default_factory=PodTemplate, description="More of the gateway's pods, in core/v1's names."
    )
