"""The built-in hardware profiles, read from `hardware.json` beside this file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from r1_operator.api.hardware import HardwareProfile


@cache
def built_in_profiles() -> Mapping[str, HardwareProfile]:
    """Profiles by name: one GPU kind times the node sizes that are sold."""
    cards = json.loads(files(__package__).joinpath("hardware.json").read_text(encoding="utf-8"))
    return MappingProxyType(
        {profile.name: profile for card in cards for size in card["gpusPerNode"] for profile in [_profile(card, size)]}
    )


def _profile(card: Mapping[str, object], size: int) -> HardwareProfile:
    """A smaller machine has its share of the node's network."""
    network = card.get("networkGbitsPerSecondPerGpu", 0)
    assert isinstance(network, int)
    figures = {key: value for key, value in card.items() if key not in {"sources", "networkGbitsPerSecondPerGpu"}}
    sources = card["sources"]
    assert isinstance(sources, dict)
    return HardwareProfile.model_validate(
        figures
        | {
            "name": f"{card['name']}x{size}",
            "gpusPerNode": size,
            "networkGbitsPerSecond": network * size,
            "source": " ".join(f"{key}: {text}" for key, text in sources.items()),
        }
    )
