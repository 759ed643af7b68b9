"""The load test's figures against plain references."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1_bench.statistics import Failure, Record, distribution, gaps, measures, meets, percentile, summarize

seconds = st.floats(0, 1e4, allow_nan=False)


@given(st.lists(seconds, min_size=2), st.integers(1, 99))
def test_percentiles_agree_with_the_inclusive_quantiles_of_the_standard_library(values: list[float], cut: int) -> None:
    reference = statistics.quantiles(values, n=100, method="inclusive")[cut - 1]
    assert percentile(sorted(values), cut) == pytest.approx(reference, rel=1e-9, abs=1e-9)


@given(st.lists(seconds, min_size=1))
def test_percentiles_rise_and_stay_within_the_values(values: list[float]) -> None:
    found = distribution(values)
    assert found is not None
    ladder = [min(values), *(found.percentiles[percent] for percent in sorted(found.percentiles)), found.maximum]
    assert all(low <= high or math.isclose(low, high) for low, high in pairwise(ladder))
    assert found.maximum == max(values)
    assert found.mean == pytest.approx(statistics.fmean(values))


@st.composite
def records(draw: st.DrawFn) -> Record:
    intended = draw(st.floats(0, 100))
    steps = draw(st.lists(st.floats(0.001, 1), min_size=3, max_size=20))
    moments = [intended]
    for step in steps:
        moments.append(moments[-1] + step)
    sent, *tokens, ended = moments[1:]
    thought = draw(st.integers(0, len(tokens)))
    return Record(
        index=0,
        intended=intended,
        sent=sent,
        ended=ended,
        first_thought=tokens[0] if thought else None,
        first_answer=tokens[thought] if thought < len(tokens) else None,
        token_times=tuple(tokens),
        output_tokens=len(tokens),
        thought_tokens=thought,
        failure=draw(st.sampled_from([None, None, Failure("status", "503"), Failure("cut", "")])),
    )


@given(st.lists(records(), max_size=30), st.integers(0, 5), st.floats(0.01, 20))
def test_a_summary_counts_every_request_once(found: list[Record], unfinished: int, limit: float) -> None:
    summary = summarize(found, unfinished, {"e2e": limit})
    good = [record for record in found if record.failure is None]
    assert (summary.succeeded + summary.failed, summary.unfinished) == (len(found), unfinished)
    assert sum(summary.failures.values()) == summary.failed
    assert summary.output_tokens == sum(record.output_tokens for record in good)
    if found:
        met = sum(1 for record in good if record.ended - record.intended <= limit)
        assert summary.goodput == pytest.approx(met / (len(found) + unfinished))
        assert all(meets(record, {}) == (record.failure is None) for record in found)


@given(records())
def test_latencies_of_a_request_fit_together(record: Record) -> None:
    found = measures(record)
    assert found["ttft"] == min(
        at - record.intended for at in (record.first_thought, record.first_answer) if at is not None
    )
    assert found["ttft"] <= found["e2e"]
    if "tpot" in found:  # one token a piece: the mean time per token is the mean gap
        assert found["tpot"] == pytest.approx(statistics.fmean(gaps(record)))


def test_waiting_before_the_start_counts_as_latency() -> None:
    late = Record(index=0, intended=1.0, sent=4.0, ended=6.0, token_times=(5.0,), output_tokens=1)
    assert measures(late) == {"e2e": 5.0, "ttft": 4.0}
    assert "saturated" in summarize([late], 0, {}).warnings[0]
