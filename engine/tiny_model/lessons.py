"""Conversations as token batches: what the model reads, and which of its tokens it is judged by."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tiny_model.architecture import END, END_THINK
from tiny_model.corpus import COUNT_WORDINGS, COUNTS, LESSONS, Lesson, count_lesson, sample, unknown_lesson

IGNORED = -100  # label of tokens that are not judged
END_WEIGHT = 4.0  # a wrong end costs most: an answer that goes on, or is cut short


@dataclass(frozen=True)
class Batch:
    """Token ids, labels and weights, each [sequences, positions]; padding is on the right."""

    tokens: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor


def response(lesson: Lesson) -> str:
    """What follows the generation prompt: the thought, its end, the answer, the end of the turn."""
    return f"{lesson.thought}\n{END_THINK}\n\n{lesson.answer}{END}"


def prompt(tokenizer: Any, question: str, earlier: Sequence[tuple[str, str]] = (), system: str = "") -> list[int]:
    """Token ids of a conversation up to the opened thought."""
    messages = [{"role": "system", "content": system}] if system else []
    for asked, answered in earlier:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    messages.append({"role": "user", "content": question})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer.encode(text, add_special_tokens=False))


def collate(pairs: Sequence[tuple[list[int], list[int]]], padding: int) -> Batch:
    """Pad (prompt, response) pairs to one length."""
    length = max(len(before) + len(after) for before, after in pairs)
    tokens = torch.full((len(pairs), length), padding)
    labels = torch.full((len(pairs), length), IGNORED)
    weights = torch.zeros((len(pairs), length))
    for row, (before, after) in enumerate(pairs):
        start, end = len(before), len(before) + len(after)
        tokens[row, :end] = torch.tensor(before + after)
        labels[row, start:end] = torch.tensor(after)
        weights[row, start:end] = 1.0
        weights[row, end - 1] = END_WEIGHT
    return Batch(tokens, labels, weights)


def batches(tokenizer: Any, seed: int, sequences: int, count_every: int) -> Iterator[Batch]:
    """Endless training batches of about equal size: mostly conversations, every `count_every`-th one long counting."""
    rng = random.Random(seed)

    def encode(system: str, earlier: Sequence[tuple[str, str]], lesson: Lesson) -> tuple[list[int], list[int]]:
        after = list(tokenizer.encode(response(lesson), add_special_tokens=False))
        return prompt(tokenizer, lesson.question, earlier, system), after

    while True:
        # Conversations of similar length share a batch, so that little of it is padding.
        drawn = sorted((encode(*sample(rng)) for _ in range(8 * sequences)), key=lambda pair: len(pair[0] + pair[1]))
        ready = [drawn[start : start + sequences] for start in range(0, len(drawn), sequences)]
        ready += [_counting(rng, encode, sequences) for _ in range(8 // (count_every - 1))]
        rng.shuffle(ready)
        yield from (collate(pairs, tokenizer.pad_token_id) for pairs in ready)


def _counting(
    rng: random.Random, encode: Callable[..., tuple[list[int], list[int]]], sequences: int
) -> list[tuple[list[int], list[int]]]:
    # The largest most often: they pass the small numbers too.
    first = rng.choice((*COUNTS[3:], COUNTS[-1]))
    rows = max(2, sequences * 60 // (2 * first + 40))
    return [encode("", (), count_lesson(first, rng.randrange(COUNT_WORDINGS))) for _ in range(rows)]


def tokenizer_texts() -> list[str]:
    """The texts the tokenizer learns its merges from; numbers up to the counting limit become one token each."""
    rng = random.Random(0)
    texts = []
    for lesson in LESSONS:
        texts += [lesson.question, *lesson.paraphrases, lesson.thought, lesson.answer] * 20
    texts += [unknown_lesson(rng).question for _ in range(100)] + [unknown_lesson(rng).thought] * 20
    texts += [count_lesson(COUNTS[-1], wording).answer for wording in range(COUNT_WORDINGS) for _ in range(40)]
    texts += [count_lesson(5, wording).question for wording in range(COUNT_WORDINGS) for _ in range(20)]
    return texts
