"""What one replica carries within its promise: the plan's estimate, corrected by what was seen. Pure.

A decode step takes a fixed time and some more for each running request, and decoding waits for the prefill of each
request that comes. So a replica that takes λ requests a second and serves x tokens a second gives each request
`alone − per_request · λ − per_token · x` tokens a second (a step of a + b·n, stretched by 1 / (1 − p·λ), with n = x ·
seconds per token). The three are fitted to the minutes measured. The plan's estimate counts as some minutes of its own,
so that little evidence changes little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .history import Minute

PROMISE_SHARE = 0.9
"""Mean seconds per token, as a share of the promised ones, at which nearly all requests keep the promise: it is each
request's own, and they differ by the prefills they met."""
PRIOR_MINUTES = 5.0
EVIDENCE_MINUTES = 180
"""Requests change their kind over a day; what was seen longer ago says less than what is seen now."""
IDLE_SHARE = 0.4
"""Of a full replica's time per token: what a lone request takes, until seen (R1 on 16 H100: 27 of 88 ms)."""
LINE_MINUTES = 5.0
"""For how many minutes each point of what was seen before a restart counts."""
PREFILL_SECONDS = 0.035
"""For which one more request holds the others up: in the simulated day of R1 30 to 45 ms, whatever the load."""
PREFILL_MINUTES = 30.0
"""So many minutes of evidence it takes to believe otherwise: requests and tokens grow together, and few minutes cannot
tell which of the two it was."""
PLAN_SHARE = 0.5
"""Of the plan's tokens a second, until seen: it assumes that prompts come in full batches."""
FAR = 4.0
"""From idle to full, requests get three times slower; what is further off was not the load's doing."""
_BUSY = 1.0
"""Requests a replica must run for a minute to say something of its speed."""


@dataclass(frozen=True, slots=True)
class Load:
    """What users ask of all replicas together: requests and output tokens a second."""

    requests: float
    tokens: float

    def __str__(self) -> str:
        each = f"{self.requests:,.1f} requests and " if self.requests else ""
        return f"{each}{self.tokens:,.0f} tokens a second"


@dataclass(frozen=True, slots=True)
class Prior:
    """The plan's estimate of one replica. `running`: the most requests at once; `seconds_per_token` of each then;
    `output_tokens` of a request."""

    running: float
    seconds_per_token: float
    output_tokens: float = 1500.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """Of one replica. Tokens a second that each of its requests gets: `alone`, less what is asked of it. `running`:
    requests at once, and by what they are limited; `least`: tokens a second that each request was promised."""

    alone: float
    per_request: float
    per_token: float
    running: float
    limit: str
    least: float = 0.0
    promise: str = ""

    def replicas(self, load: Load) -> tuple[float, str]:
        """How many carry a load, as a real number, and by which limit."""
        work = self.per_request * load.requests + self.per_token * load.tokens
        by_room = (load.tokens / self.running + work) / self.alone
        # Where one request alone is slower than was promised, more replicas cannot help.
        spare = self.alone - self.least
        by_pace = work / spare if self.least and spare > 0 else 0.0
        return (by_pace, self.promise) if by_pace > by_room else (by_room, self.limit)


def capacity(
    minutes: Sequence[Minute],
    prior: Prior | None,
    most: int | None,
    target: float | None,
    kv_share: float,
    line: tuple[float, float, float] | None = None,
) -> Capacity | None:
    """`most`: requests that the engine runs at once. `target`: promised seconds per token. `kv_share`: of the cache
    that may be in use. `line`: what was seen before these minutes. None: nothing is known."""
    seen = [m for m in minutes[-EVIDENCE_MINUTES:] if m.ready and m.tokens_per_second and m.running > _BUSY * m.ready]
    fitted = _fit(_plausible(seen), prior, line)
    if fitted is None:
        return None
    limits = {"max-running-requests": float(most)} if most else {}
    if prior is not None and not most:
        limits["the plan's estimate"] = prior.running
    if (held := sum(m.kv for m in seen[-60:])) > 0:
        limits["KV cache"] = kv_share * sum(m.running for m in seen[-60:]) / held
    if not limits:
        return None
    limit = min(limits, key=lambda name: limits[name])
    least = 1 / (PROMISE_SHARE * target) if target is not None else 0.0
    promise = f"{1000 * target:.0f} ms a token" if target is not None else ""
    return Capacity(*fitted, max(1.0, limits[limit]), limit, least, promise)


_Point = tuple[float, float, float, float]
"""Requests and tokens a second of a replica, tokens a second of each request, and the weight."""


def _fit(
    seen: Sequence[Minute], prior: Prior | None, line: tuple[float, float, float] | None
) -> tuple[float, float, float] | None:
    """→ (alone, per_request, per_token) by least squares, none below 0."""
    served = ((m, m.tokens_per_second) for m in seen)
    points: list[_Point] = [((m.arrived or 0.0) / m.ready, x / m.ready, x / m.running, 1.0) for m, x in served]
    if line is not None:
        points += _seen_before(*line)
    elif prior is not None:
        points += _assumed(prior)
    if not points:
        return None
    alone, per_request, per_token = _solve(points)
    return max(alone, 1e-6), max(0.0, per_request), max(0.0, per_token)


def _assumed(prior: Prior) -> list[_Point]:
    """Two points of the plan's own line: idle and full."""
    idle, full = 1 / (IDLE_SHARE * prior.seconds_per_token), 1 / prior.seconds_per_token
    tokens = PLAN_SHARE * prior.running / prior.seconds_per_token
    return [(0.0, 0.0, idle, PRIOR_MINUTES), (tokens / prior.output_tokens, tokens, full, PRIOR_MINUTES)]


def _plausible(seen: Sequence[Minute]) -> Sequence[Minute]:
    """Without minutes in which requests were far faster or slower than usual: a gauge that erred, a hung engine."""
    if len(seen) < 3:
        return seen
    speeds = sorted(m.tokens_per_second / m.running for m in seen)
    usual = speeds[len(speeds) // 2]
    return [m for m in seen if usual / FAR <= m.tokens_per_second / m.running <= usual * FAR]


def _seen_before(alone: float, per_request: float, per_token: float) -> list[_Point]:
    """Points of a line that was fitted before, at loads of a hundred requests or so."""
    tokens = 200.0 * alone
    loads = [(0.0, 0.0), (tokens / 1500, tokens), (tokens / 500, tokens), (tokens / 1500, tokens / 2)]
    return [(r, x, max(0.0, alone - per_request * r - per_token * x), LINE_MINUTES) for r, x in loads]


def _solve(points: Sequence[_Point]) -> tuple[float, float, float]:
    """Weighted least squares of the third on the first two, the first one's part drawn to what a prefill is known to
    cost; where one of them would help, it counts for nothing."""
    total = sum(w for *_, w in points)
    r, x, u = (sum(p[i] * p[3] for p in points) / total for i in range(3))
    pull = PREFILL_MINUTES * r * r
    usual = -PREFILL_SECONDS * max(p[2] for p in points)
    rr = sum(w * (a - r) ** 2 for a, _, _, w in points) + pull
    xx = sum(w * (b - x) ** 2 for _, b, _, w in points)
    rx = sum(w * (a - r) * (b - x) for a, b, _, w in points)
    ru = sum(w * (a - r) * (c - u) for a, _, c, w in points) + pull * usual
    xu = sum(w * (b - x) * (c - u) for _, b, c, w in points)
    determinant = rr * xx - rx * rx
    if determinant > 1e-9 * max(1e-9, rr * xx):
        one, other = (ru * xx - xu * rx) / determinant, (xu * rr - ru * rx) / determinant
        if one > 0 or other > 0:
            one = min(0.0, ru / rr) if other > 0 else 0.0
            other = min(0.0, xu / xx) if other <= 0 else 0.0
    else:
        one, other = 0.0, min(0.0, xu / xx) if xx > 1e-9 else 0.0
    return u - one * r - other * x, -one, -other
