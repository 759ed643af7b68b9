"""The tiny model says the same words in Transformers, in one process and with TP 2.

That attention DP 2 x EP 2 on two nodes says them as well is asked of the gang that test_gang starts anyway.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engine.gang import TINY_MODEL, Gang
from tests.engine.words import questions, wrong_answers

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

SIZE_LIMIT = 8 * 1024 * 1024
MARGIN = 1.0  # logits between the best and the second best token; layouts move them by about a tenth
PARSER = ("--reasoning-parser", "deepseek-r1")

ONE_PROCESS = {"nodes": 1, "engine_args": ("--tp-size", "1", *PARSER), "config": {"attentionDataParallel": 1}}
TENSOR_PARALLEL = {
    "nodes": 1,
    "engine_args": ("--tp-size", "2", *PARSER),
    "config": {"attentionDataParallel": 1, "gpusPerNode": 2},
}


def test_the_directory_is_small_complete_and_r1s_architecture() -> None:
    config = json.loads((TINY_MODEL / "config.json").read_text())
    assert sum(file.stat().st_size for file in TINY_MODEL.iterdir()) <= SIZE_LIMIT
    assert config["architectures"] == ["DeepseekV3ForCausalLM"]
    assert (config["topk_method"], config["scoring_func"], config["n_shared_experts"]) == ("noaux_tc", "sigmoid", 1)
    assert config["rope_scaling"]["type"] == "yarn"
    assert config["q_lora_rank"]
    assert len(questions()) >= 20
    assert any(entry["answer"] == "9.8" for entry in questions())


@pytest.fixture(scope="module")
def plain() -> tuple[Any, Any]:
    from tiny_model.verify import load

    return load(TINY_MODEL)


def test_the_routing_bias_is_exercised(plain: tuple[Any, Any]) -> None:
    gates = [layer.mlp.gate for layer in plain[0].model.layers if hasattr(layer.mlp, "gate")]
    assert gates
    assert all(gate.e_score_correction_bias.abs().max() > 0 for gate in gates)


def test_a_plain_forward_pass_answers_every_question_and_is_sure(plain: tuple[Any, Any]) -> None:
    from tiny_model.verify import margins

    leads = dict(zip((entry["question"] for entry in questions()), margins(*plain, questions()), strict=True))
    assert {question: lead for question, lead in leads.items() if lead < MARGIN} == {}


def test_the_chat_template_behaves_as_r1s(plain: tuple[Any, Any]) -> None:
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "A"},
        {"role": "assistant", "content": "<think>\nhidden\n</think>\n\nB"},
        {"role": "user", "content": "C"},
    ]
    text = plain[1].apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<｜begin▁of▁sentence｜>S<｜User｜>A<｜Assistant｜>B<｜end▁of▁sentence｜><｜User｜>C<｜Assistant｜><think>\n"
    )


@pytest.fixture(params=[ONE_PROCESS, TENSOR_PARALLEL], ids=["one process", "TP 2"])
def single_node(request: pytest.FixtureRequest) -> Iterator[Gang]:
    with Gang(python=sys.executable, **request.param) as gang:
        gang.wait_ready()
        yield gang


def test_one_node_says_the_same_words(single_node: Gang) -> None:
    assert wrong_answers(single_node) == []
