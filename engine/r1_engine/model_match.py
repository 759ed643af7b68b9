"""Is this the model that was planned for? The folder's config.json against the plan's figures. Pure.

A figure that the file does not state is unknown and not compared: transformers has defaults for many. A missing
quantization is known: it means none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1_engine.expected import ExpectedModel

VOCABULARY = "vocab_size"
VOCABULARY_TOLERANCE = 0.02
"""A fine-tune may add some tokens; what they take is lost in the plan's slack."""


def mismatch(config: Mapping[str, Any], expected: ExpectedModel, quantized_beside: bool = False) -> str | None:
    """What the file says otherwise than the plan, in one sentence; None if nothing.

    `quantized_beside`: the folder has a hf_quant_config.json, in which ModelOpt's checkpoints keep what theirs is.
    """
    other = list(_differences(config, expected, quantized_beside))
    if not other:
        return None
    shown = ", ".join(other[:4]) + (f" and {len(other) - 4} more" if len(other) > 4 else "")
    return f"is not {expected.name}, which {expected.field} plans for: {shown}"


def remedy(expected: ExpectedModel) -> str:
    """Which of the two is wrong only the user knows."""
    return f"Set {expected.field} to the model in spec.model.weights, or point spec.model.weights at {expected.name}"


def _differences(config: Mapping[str, Any], expected: ExpectedModel, quantized_beside: bool) -> list[str]:
    found: list[str] = []
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures and architectures[0] != expected.architecture:
        found.append(f"architectures is {architectures[0]} instead of {expected.architecture}")
    section = config.get("quantization_config")
    if section is not None or not quantized_beside:
        found += _quantization(section, expected)
    for key, wanted in expected.figures.items():
        value = config.get(key)
        if value is not None and not _fits(key, value, wanted):
            found.append(f"{key} is {value} instead of {wanted}")
    return found


def _quantization(section: Any, expected: ExpectedModel) -> list[str]:
    is_mapping = isinstance(section, Mapping)
    method = section.get("quant_method") if is_mapping else section
    if method != expected.quantization:
        wanted = expected.quantization or "none (BF16)"
        return [f"quantization_config.quant_method is {method or 'none (BF16)'} instead of {wanted}"]
    block = section.get("weight_block_size") if is_mapping else None
    if expected.weight_block is not None and block != list(expected.weight_block):
        return [f"quantization_config.weight_block_size is {block} instead of {list(expected.weight_block)}"]
    return []


def _fits(key: str, value: Any, wanted: int) -> bool:
    if key == VOCABULARY and isinstance(value, int):
        return abs(value - wanted) <= wanted * VOCABULARY_TOLERANCE
    return bool(value == wanted)
