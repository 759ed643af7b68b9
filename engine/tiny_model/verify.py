"""Check a trained directory with Transformers' plain forward pass in bf16: the words, and how sure it is of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tiny_model.corpus import Lesson
from tiny_model.lessons import IGNORED, collate, prompt, response

BATCH = 8  # conversations in one forward pass


def load(directory: Path) -> tuple[Any, Any]:
    """(model in bf16, tokenizer), as any user of Transformers would load them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    return model.eval(), AutoTokenizer.from_pretrained(directory)


def margins(model: Any, tokenizer: Any, entries: Sequence[Mapping[str, str]]) -> list[float]:
    """For each entry {question, thought, answer} the smallest lead, in logits, of the right token over every other.

    One forward pass over the conversation tells what greedy decoding would say: if the right token leads at every
    position of the response, its end included, decoding produces exactly that; a lead below zero is a wrong word.
    """
    found: list[float] = []
    for start in range(0, len(entries), BATCH):
        pairs = []
        for entry in entries[start : start + BATCH]:
            after = response(Lesson(entry["question"], entry["thought"], entry["answer"]))
            pairs.append(
                (prompt(tokenizer, entry["question"]), list(tokenizer.encode(after, add_special_tokens=False)))
            )
        batch = collate(pairs, tokenizer.pad_token_id)
        with torch.no_grad():
            logits = model(batch.tokens, use_cache=False).logits[:, :-1].float()
        labels = batch.labels[:, 1:]
        judged = labels != IGNORED
        right = labels.clamp(min=0).unsqueeze(-1)
        target = logits.gather(-1, right).squeeze(-1)
        other = logits.scatter(-1, right, float("-inf")).amax(-1)
        lead = (target - other).masked_fill(~judged, float("inf"))
        found += lead.amin(-1).tolist()
    return found
