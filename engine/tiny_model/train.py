"""Train the tiny model: `python engine/tiny_model/train.py --out DIR --seed 0`.

Writes config.json, model.safetensors, the tokenizer, generation_config.json and questions.json, then checks every
question with a plain bf16 forward pass. Exit code 1 if an answer is wrong or not sure enough.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_model.architecture import config, save_checkpoint
from tiny_model.corpus import COUNTS, LESSONS, UNKNOWN, count_lesson
from tiny_model.lessons import IGNORED, Batch, batches, tokenizer_texts
from tiny_model.tokenizer import save_tokenizer, train_tokenizer
from tiny_model.verify import load, margins

VOCABULARY = 1024
STEPS = 450
SEQUENCES = 24  # conversations per batch, about 70 tokens each
COUNT_EVERY = 2
PEAK_RATE = 4e-3
WARMUP_STEPS = 60
WEIGHT_DECAY = 0.05
# Relative noise added to every layer's output while training. bf16 rounds at 2^-9 of a value; other layouts add the
# same terms in another order. A model that is sure under ten times as much noise says the same words in all of them.
NOISE = 0.02
BALANCE_RATE = 2e-3  # DeepSeek-V3 technical report, 2.1.2: the routing bias moves against each expert's load
MARGIN = 2.0  # logits; rounding moves them by about 0.1


def new_model(vocabulary: int) -> Any:
    """A float32 DeepseekV3ForCausalLM with freshly drawn weights."""
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    model = DeepseekV3ForCausalLM._from_config(
        DeepseekV3Config.from_dict(config(vocabulary)), attn_implementation="eager", dtype=torch.float32
    )
    for module in model.modules():
        # Wider than DeepSeek's 0.02, which suits widths of thousands: 1 / sqrt(128) is 0.09.
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.06)
    for name, weight in model.named_parameters():
        if "experts" in name or name.endswith("gate.weight"):
            torch.nn.init.normal_(weight, std=0.06)
    return model.train()


def add_noise(model: Any, size: float) -> list[Any]:
    """Disturb each layer's output by `size` of its own root mean square; returns the hooks."""

    def disturb(_: Any, __: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        scale = hidden.detach().pow(2).mean(-1, keepdim=True).sqrt()
        noisy = hidden + size * scale * torch.randn_like(hidden)
        return (noisy, *output[1:]) if isinstance(output, tuple) else noisy

    return [layer.register_forward_hook(disturb) for layer in model.model.layers]


def balance_experts(model: Any, rate: Callable[[], float]) -> list[Any]:
    """Auxiliary-loss-free balancing: after each forward pass a gate's bias moves towards its less used experts."""

    def count(gate: Any, _: Any, output: Any) -> None:
        load = torch.bincount(output[2].flatten(), minlength=gate.num_experts).float()
        gate.e_score_correction_bias += rate() * torch.sign(load.mean() - load)

    gates = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "gate")]
    return [gate.register_forward_hook(count) for gate in gates]


def loss_of(model: Any, batch: Batch) -> torch.Tensor:
    """Weighted cross entropy of the judged tokens."""
    logits = model(batch.tokens, use_cache=False).logits[:, :-1]
    labels, weights = batch.labels[:, 1:].flatten(), batch.weights[:, 1:].flatten()
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels, ignore_index=IGNORED, reduction="none", label_smoothing=0.0
    )
    return (losses * weights).sum() / weights.sum()


def rate_at(step: int, steps: int) -> float:
    """Learning rate as a share of its peak: a linear warm-up, then half a cosine down to zero."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)))


def train(model: Any, tokenizer: Any, seed: int, steps: int) -> None:
    decayed = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=PEAK_RATE,
        betas=(0.9, 0.98),
    )
    share = 0.0
    hooks = add_noise(model, NOISE) + balance_experts(model, lambda: BALANCE_RATE * share)
    begin = time.monotonic()
    source = batches(tokenizer, seed, SEQUENCES, COUNT_EVERY)
    for step in range(steps):
        share = rate_at(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * share
        loss = loss_of(model, next(source))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:5d}  loss {loss.item():.4f}  {time.monotonic() - begin:5.0f} s", flush=True)
    for hook in hooks:
        hook.remove()


def write_questions(directory: Path) -> None:
    lessons = [*LESSONS, *(count_lesson(last) for last in COUNTS)]
    entries = [{"question": one.question, "thought": one.thought, "answer": one.answer} for one in lessons]
    (directory / "questions.json").write_text(json.dumps(entries, indent=1) + "\n")


def check(directory: Path) -> int:
    """Ask everything in questions.json; the number of answers that are wrong or not sure enough."""
    model, tokenizer = load(directory)
    entries = json.loads((directory / "questions.json").read_text())
    found = margins(model, tokenizer, entries)
    bad = 0
    for entry, margin in zip(entries, found, strict=True):
        if margin < MARGIN:
            bad += 1
            print(f"{'unsure' if margin > 0 else 'WRONG'}, lead {margin:.2f}: {entry['question']}")
    unseen = {"question": "Please compare the long river and the mountains?"}
    (lead,) = margins(model, tokenizer, [{**unseen, "thought": UNKNOWN.thought, "answer": UNKNOWN.answer}])
    print(f"a prompt it never saw: lead {lead:.2f} of saying that it does not know")
    print(f"{len(entries)} questions, {bad} wrong or unsure, smallest lead {min(found):.2f} logits")
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1, help="the same number gives the same bytes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(options.seed)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    save_tokenizer(train_tokenizer(tokenizer_texts(), VOCABULARY), out)
    settings = config(VOCABULARY)
    (out / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    generation = {"bos_token_id": 0, "eos_token_id": 1, "do_sample": True, "temperature": 0.6, "top_p": 0.95}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    write_questions(out)

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(out)
    print(f"vocabulary {len(tokenizer)} tokens", flush=True)
    model = new_model(VOCABULARY)
    print(f"{sum(weight.numel() for weight in model.parameters())} parameters", flush=True)
    train(model, tokenizer, options.seed, options.steps)
    save_checkpoint(model, out)
    return 1 if check(out) else 0


if __name__ == "__main__":
    sys.exit(main())
