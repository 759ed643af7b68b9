"""The tiny model's own byte-level BPE tokenizer, with R1's special tokens and the behaviour of its chat template."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tiny_model.architecture import ASSISTANT, BEGIN, CONTEXT, END, END_THINK, PAD, THINK, USER
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

# Numbers in groups of up to three digits, words with the space before them: how DeepSeek-V3's tokenizer cuts text.
WORD = r"\p{N}{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"

# System text first, then the turns. An earlier assistant turn shows only what follows its thought. The generation
# prompt opens the thought, so an answer starts inside it. (R1's behaviour; tools are left out.)
CHAT_TEMPLATE = (
    "{%- set opening = messages | selectattr('role', 'equalto', 'system') | map(attribute='content') | join('\n\n') -%}"
    "{{- bos_token + opening -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}"
    f"{{{{- '{USER}' + message['content'] -}}}}"
    "{%- elif message['role'] == 'assistant' -%}"
    f"{{{{- '{ASSISTANT}' + (message['content'] or '').split('{END_THINK}')[-1].lstrip('\n') + eos_token -}}}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    f"{{%- if add_generation_prompt -%}}{{{{- '{ASSISTANT}{THINK}\n' -}}}}{{%- endif -%}}"
)


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Learn merges from `texts` until the vocabulary, special tokens included, has at most `size` entries."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    roles = [USER, ASSISTANT, THINK, END_THINK]
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(roles),
        special_tokens=[BEGIN, END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Not "special": they must survive decoding, or no reasoning parser would see where the thought ends.
    tokenizer.add_tokens([AddedToken(role, special=False, normalized=False) for role in roles])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n")
