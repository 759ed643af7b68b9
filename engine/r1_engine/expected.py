"""`expected` of engine.json: what the gang was planned for. A field that is absent is not compared."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Told(BaseModel):
    """Told by an operator that may know more than this engine: unknown fields are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class ExpectedHardware(_Told):
    """One node of the hardware profile. `products`: names of the board as the label nvidia.com/gpu.product spells them,
    which is NVML's name with hyphens for spaces. `compute_capability` is times ten."""

    profile: str
    gpus: Annotated[int, Field(ge=1)]
    products: tuple[str, ...] = ()
    memory_mib: Annotated[int, Field(ge=1)] | None = None
    compute_capability: Annotated[int, Field(ge=1)] | None = None


class ExpectedModel(_Told):
    """The planned model. `field`: the one of the resource that names it. `figures`: whole numbers of its config.json by
    their names there. `quantization`: its quant_method, None for none; `weight_block`: its weight_block_size."""

    name: str
    field: str
    architecture: str
    quantization: str | None = None
    weight_block: tuple[int, ...] | None = None
    figures: dict[str, int] = Field(default_factory=dict)


class Expected(_Told):
    """What is found is compared with this before anything is started."""

    hardware: ExpectedHardware | None = None
    model: ExpectedModel | None = None
