"""The limit of silence follows the steps that a gang was seen to take."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from r1_engine.config import Limits
from r1_engine.health import Moment
from r1_engine.pace import Pace, chunk_of

LIMITS = Limits()
CHUNK = 16_384


def prefill(seconds: float, *, tokens: float = CHUNK, waited: float = 0.0, steps: int = 6) -> Pace:
    """A gang of one rank that computes prefills of so many seconds each, looked at every 2 s."""
    pace = Pace(CHUNK)
    for at in range(0, int(seconds * steps) + 2, 2):
        done = at // seconds
        pace = pace.observed({0: (1, (0.0, tokens * done, seconds * 1e6 * done))}, Moment(at, waited * at))
    return pace


def test_a_gang_that_takes_long_steps_gets_the_time_for_them() -> None:
    for seconds in (9, 27):
        assert seconds < prefill(seconds).limit(LIMITS, 6 * seconds, doubtful=True) <= LIMITS.slow
        assert 3 * seconds < prefill(seconds).limit(LIMITS, 6 * seconds, doubtful=False)
    assert prefill(27).limit(LIMITS, 6 * 27 + 601, doubtful=False) == LIMITS.hang, "only as long as it does"


def test_a_usual_gang_is_judged_as_soon_as_ever() -> None:
    for seconds in (0.1, 0.5, 2):
        assert prefill(seconds, steps=30).limit(LIMITS, 60, doubtful=False) == LIMITS.hang
        assert prefill(seconds, steps=30).limit(LIMITS, 60, doubtful=True) == LIMITS.hang, "it has shown its pace"
    assert prefill(9, waited=1.0).limit(LIMITS, 60, doubtful=False) == LIMITS.hang, "what starved is excused by itself"


def test_a_doubtful_fabric_gets_time_until_a_full_prefill_was_seen() -> None:
    assert Pace(CHUNK).limit(LIMITS, 0, doubtful=True) == LIMITS.slow
    assert prefill(0.5, tokens=1).limit(LIMITS, 3, doubtful=True) == LIMITS.slow
    assert Pace(CHUNK).limit(LIMITS, 0, doubtful=False) == LIMITS.hang


@given(
    looks=st.lists(st.tuples(st.floats(0, 60), st.floats(0, 1e9), st.floats(0, 1e6)), max_size=20),
    doubtful=st.booleans(),
    hang=st.floats(1, 600),
)
def test_the_limit_stays_between_its_bounds(
    looks: list[tuple[float, float, float]], doubtful: bool, hang: float
) -> None:
    pace, now, limits = Pace(CHUNK), 0.0, Limits(hang=hang)
    for seconds, busy, tokens in looks:
        now += seconds
        pace = pace.observed({0: (1, (0.0, tokens, busy))}, Moment(now))
        assert limits.hang <= pace.limit(limits, now, doubtful=doubtful) <= max(limits.hang, limits.slow)
    assert limits.longest_silence >= limits.slow, "a probe waits as long as a rank may be silent"


def test_the_size_of_a_full_prefill_is_read_from_the_arguments() -> None:
    assert chunk_of(["--tp-size", "16", "--chunked-prefill-size", "16384"]) == 16_384
    assert chunk_of(["--chunked-prefill-size=4096"]) == 4096
    assert chunk_of(["--chunked-prefill-size", "-1"]) == chunk_of([]) == 8192
