"""Arguments for the older SGLang, against the flags it accepts (`tests/engine/sglang_flags.py` lists them)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from r1_operator.planning.engine_args import SGLANG_OLDER, SGLANG_VERSION
from r1_operator.planning.overrides import COUNTED, WITHOUT_MEMORY_FORM, argument_problem

from tests.engine.planner_cases import plans

ACCEPTED = json.loads(Path(__file__).with_name("sglang_0_5_21_flags.json").read_text())
TYPES = {"int": int, "float": float, "str": str}


def parser() -> argparse.ArgumentParser:
    """A parser of the same flags that takes no abbreviations: what is rendered is written in full."""
    made = argparse.ArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
    for name, flag in ACCEPTED["flags"].items():
        if flag["words"] == "0":
            made.add_argument(name, action="store_true")
        else:
            words = None if flag["words"] == "1" else flag["words"]
            made.add_argument(name, nargs=words, type=TYPES[flag["type"]], choices=flag.get("choices"))
    return made


def test_the_older_release_takes_every_argument_list() -> None:
    assert ACCEPTED["sglang"] == SGLANG_OLDER
    own, cases = parser(), plans(SGLANG_OLDER)
    assert {case.plan.role for case in cases} == {"Aggregated", "Prefill", "Decode"}
    for case in cases:
        values, unknown = own.parse_known_args(case.plan.engine_args)
        layout = case.plan.layout
        assert not unknown, case.name
        assert values.tp_size == layout.tensor_parallel
        assert (values.dp_size or 1) == layout.attention_dp * layout.copies, case.name
        assert values.enable_dp_attention == (layout.attention_dp > 1), case.name


def test_the_newer_spelling_is_refused_there() -> None:
    """The list can tell the releases apart: attention DP of the newer one is unknown to it."""
    newer = next(case.plan for case in plans(SGLANG_VERSION) if case.plan.layout.attention_dp > 1)
    _, unknown = parser().parse_known_args(newer.engine_args)
    assert "--attn-dp-size" in unknown


def test_only_what_sglang_really_has_is_watched_for() -> None:
    since_0_5_22 = {"--enable-kv-cache-sharding"}
    assert {*WITHOUT_MEMORY_FORM, *COUNTED} - since_0_5_22 <= set(ACCEPTED["flags"])


def test_no_flag_of_sglang_is_taken_for_an_abbreviation() -> None:
    told = {flag: argument_problem((flag, "1")) for flag in ACCEPTED["flags"]}
    assert [flag for flag, problem in told.items() if problem and "is short for" in problem.message] == []
