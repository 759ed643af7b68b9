"""How a model is cut over GPUs, and which cuts SGLang cannot build."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AllToAll(StrEnum):
    """How tokens reach their experts: `NONE` gathers them on every rank, `DEEPEP` sends each to its experts' ranks."""

    NONE = "None"
    DEEPEP = "DeepEP"


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to cut a model. All sizes count GPUs (ranks); `tensor_parallel` is the world of one model copy."""

    tensor_parallel: int
    attention_dp: int = 1
    expert_parallel: int = 1
    redundant_experts: int = 0
    all_to_all: AllToAll = AllToAll.NONE
    dp_lm_head: bool = False  # --enable-dp-lm-head
    dense_tp_one: bool = False  # --moe-dense-tp-size 1
    draft: bool = False  # multi-token prediction with the model's own NextN layer
    copies: int = 1  # whole model copies behind one server (--dp-size), for models smaller than a node

    @property
    def attention_tp(self) -> int:
        """Ranks that share one attention (and hold the same KV tokens)."""
        return self.tensor_parallel // self.attention_dp

    @property
    def expert_tp(self) -> int:
        """Ranks that share one expert."""
        return self.tensor_parallel // self.expert_parallel

    @property
    def gpus(self) -> int:
        return self.tensor_parallel * self.copies

    def describe(self) -> str:
        """The short form used in tables, e.g. `tp16 dp16 ep16+32 DeepEP mtp`."""
        words = [f"tp{self.tensor_parallel}"]
        if self.copies > 1:
            words.append(f"×{self.copies} copies")
        if self.attention_dp > 1:
            words.append(f"dp{self.attention_dp}")
        if self.expert_parallel > 1:
            extra = f"+{self.redundant_experts}" if self.redundant_experts else ""
            words.append(f"ep{self.expert_parallel}{extra}")
        if self.all_to_all is not AllToAll.NONE:
            words.append(self.all_to_all.value)
        if self.dp_lm_head:
            words.append("dp-lm-head")
        if self.dense_tp_one:
            words.append("dense-tp1")
        if self.draft:
            words.append("mtp")
        return " ".join(words)
