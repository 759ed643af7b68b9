"""Check a trained directory with Transformers' plain forward pass in bf16: the words, and how sure it is of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tiny_model.architecture import END_THINK
from tiny_model.lessons import prompt

COUNTS = (1, 7, 30, 77, 100, 150, 200, 250, 299, 300)


@dataclass(frozen=True)
class Answer:
    """A greedy answer; `margin` is the smallest distance of the best logit to the second best along it."""

    thought: str
    answer: str
    margin: float
    tokens: int
    ended: bool


def load(directory: Path) -> tuple[Any, Any]:
    """(model in bf16, tokenizer), as any user of Transformers would load them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    return model.eval(), AutoTokenizer.from_pretrained(directory)


def answer(model: Any, tokenizer: Any, question: str, limit: int = 1024) -> Answer:
    """Generate greedily, token by token."""
    ids = prompt(tokenizer, question)
    step = torch.tensor([ids])
    produced: list[int] = []
    cache, margin, ended = None, float("inf"), False
    while len(produced) < limit and not ended:
        with torch.no_grad():
            out = model(step, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        first, second = out.logits[0, -1].float().topk(2).values.tolist()
        margin = min(margin, first - second)
        token = int(out.logits[0, -1].argmax())
        ended = token == tokenizer.eos_token_id
        produced.append(token)
        step = torch.tensor([[token]])
    text = tokenizer.decode(produced[:-1] if ended else produced)
    thought, _, words = text.partition(END_THINK)
    return Answer(thought.strip(), words.strip(), margin, len(produced), ended)
