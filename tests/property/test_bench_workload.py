"""What the load test sends, and when."""

from __future__ import annotations

import json
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1_bench.workload import (
    WorkloadError,
    arrival_times,
    cycle_prompts,
    read_prompts,
    read_trace,
    synthetic_prompts,
    user_prompt,
)


@given(st.floats(0.1, 1000), st.sampled_from(["poisson", "constant"]), st.integers(0, 100))
@settings(max_examples=50)
def test_arrivals_rise_repeat_with_the_seed_and_keep_the_rate(rate: float, arrivals: str, seed: int) -> None:
    times = list(islice(arrival_times(rate, arrivals, seed), 2000))  # type: ignore[arg-type]
    assert times == list(islice(arrival_times(rate, arrivals, seed), 2000))  # type: ignore[arg-type]
    assert all(earlier <= later for earlier, later in pairwise(times))
    # 2000 exponential gaps: the mean is within 5 standard deviations (1 / sqrt(2000) each).
    assert times[-1] / 1999 == pytest.approx(1 / rate, rel=0.12)


@given(st.integers(1, 20), st.integers(0, 5))
def test_every_prompt_is_sent_once_a_round(count: int, seed: int) -> None:
    prompts = [user_prompt(str(number)) for number in range(count)]
    sent = list(islice(cycle_prompts(prompts, seed), 3 * count))
    assert all(sent.count(prompt) == 3 for prompt in prompts)


@given(st.integers(1, 300))
def test_made_up_prompts_have_the_asked_length_and_differ(length: int) -> None:
    first, second = islice(synthetic_prompts(length, 7, 0), 2)
    assert len(first.messages[0][1].split()) == length
    assert first.max_tokens == 7
    assert length < 5 or first != second


def test_prompts_are_read_from_the_three_kinds_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "a.jsonl").write_text('"one"\n{"messages": [{"role": "user", "content": "two"}], "max_tokens": 3}\n')
    (tmp_path / "a.json").write_text(json.dumps([{"question": "one", "answer": "x"}, {"prompt": "two"}]))
    texts = [
        [prompt.messages[0][1] for prompt in read_prompts(tmp_path / f"a.{kind}")] for kind in ("txt", "jsonl", "json")
    ]
    assert texts == [["one", "two"]] * 3
    assert read_prompts(tmp_path / "a.jsonl")[1].max_tokens == 3


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.json", "{}", "list"),
        ("a.jsonl", '{"x": 1}', "messages"),
        ("a.txt", "\n", "no prompt"),
        ("a.jsonl", "{", "entry"),
    ],
)
def test_a_bad_prompts_file_is_refused_by_name(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(WorkloadError, match=told) as error:
        read_prompts(tmp_path / name)
    assert name in str(error.value)


def test_a_csv_trace_is_replayed_at_its_own_times(tmp_path: Path) -> None:
    rows = "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.6805900,20,109\n2023-11-16 18:15:56.6805900,5,1\n"
    (tmp_path / "t.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    planned = list(read_trace(tmp_path / "t.csv", start=0, scale=2, seed=0))
    assert [one.at for one in planned] == pytest.approx([0, 2, 5])
    assert [(len(one.prompt.messages[0][1].split()), one.prompt.max_tokens) for one in planned] == [
        (374, 44),
        (20, 109),
        (5, 1),
    ]
    skipped = list(read_trace(tmp_path / "t.csv", start=3, scale=1, seed=0))
    assert [one.at for one in skipped] == pytest.approx([1, 7])


def test_servegen_clients_are_drawn_with_their_summed_rate(tmp_path: Path) -> None:
    for number, (rate, length) in enumerate([(3.0, 10), (1.0, 20)]):
        (tmp_path / f"chunk-{number}-trace.csv").write_text(f"0,{rate},1,Gamma,1,1\n600,0,0,,0,0\n")
        period = {"input_tokens": f"{{{length}: 1.0}}", "output_tokens": f"{{{2 * length}: 1.0}}"}
        (tmp_path / f"chunk-{number}-dataset.json").write_text(json.dumps({"0": period}))
    planned = [one for one in islice(read_trace(tmp_path, 0, 1, 0), 3000) if (one.at or 0) < 600]
    assert len(planned) / 600 == pytest.approx(4, rel=0.15)
    assert sum(one.prompt.max_tokens == 20 for one in planned) / len(planned) == pytest.approx(0.75, abs=0.05)
