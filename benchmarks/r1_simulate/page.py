"""A run of the operator as a page of its own: demand, forecast, replicas and misses over the day, as plain SVG."""

from __future__ import annotations

import html
from collections.abc import Sequence

from .outcome import Targets, misses
from .world import Answer

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 1100, 360, 50, 30
_WINDOW_SECONDS = 600.0
_LINES = {
    "serving": ("#1b6ec2", 2),
    "held": ("#8fb8de", 3),
    "needed": ("#c2571b", 4),
    "forecast's bound": ("#d9a441", 5),
}
"""Name and colour of each line, and at which place of the trail's rows it stands, less one."""


def of(answer: Answer, targets: Targets, until: float) -> str:
    """The page as HTML; it loads nothing."""
    trail = answer.trail
    top = max((max(row[1:]) for row in trail), default=1.0) * 1.1
    lines = "".join(
        _line([(row[0], row[place - 1]) for row in trail], until, top, colour) for colour, place in _LINES.values()
    )
    legend = "".join(f'<span style="color:{colour}">━ {name}</span> ' for name, (colour, _) in _LINES.items())
    said = "".join(
        f"<tr><td>{at / 3600:.2f} h</td><td>{count}</td><td>{html.escape(words)}</td></tr>"
        for at, count, _, words in answer.said
    )
    found = answer.outcome
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>r1 simulate</title>
<style>body{{font:14px/1.5 system-ui,sans-serif;max-width:{_WIDTH + 60}px;margin:2em auto;color:#222}}
table{{border-collapse:collapse}}td{{padding:2px 10px;border-top:1px solid #ddd;vertical-align:top}}</style>
<h1>{found.requests:,} requests, {100 * found.kept:.2f}% in time, {found.replica_hours:.1f} replica-hours</h1>
<p>{legend}<span style="color:#b33">▮ outside the targets</span></p>
<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="replicas over time">{_axes(until, top)}
{_bars(answer, targets, until)}{lines}</svg>
<h2>Each change, and why</h2><table>{said}</table></html>"""


def _x(at: float, until: float) -> float:
    return _LEFT + (_WIDTH - _LEFT) * at / until


def _y(value: float, top: float) -> float:
    return (_HEIGHT - _BOTTOM) * (1 - value / top)


def _line(points: Sequence[tuple[float, float]], until: float, top: float, colour: str) -> str:
    path = " ".join(f"{_x(at, until):.1f},{_y(value, top):.1f}" for at, value in points)
    return f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>'


def _axes(until: float, top: float) -> str:
    hours = int(until // 3600)
    every = max(1, hours // 12)
    marks = [
        f'<text x="{_x(3600.0 * hour, until):.0f}" y="{_HEIGHT - 8}" font-size="11">{hour} h</text>'
        for hour in range(0, hours + 1, every)
    ]
    step = max(1, round(top / 8))
    for count in range(0, int(top) + 1, step):
        y = _y(count, top)
        marks.append(f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>')
        marks.append(f'<text x="{_LEFT - 25}" y="{y + 4:.1f}" font-size="11">{count}</text>')
    return "".join(marks)


def _bars(answer: Answer, targets: Targets, until: float) -> str:
    """Share of each ten minutes' requests that missed a target, as a bar of that height."""
    missed = misses(answer.requests, targets, _WINDOW_SECONDS, until)
    asked = [0] * len(missed)
    for at in answer.requests.at:
        if at < until:
            asked[int(at // _WINDOW_SECONDS)] += 1
    bars = []
    for number, (bad, all_) in enumerate(zip(missed, asked, strict=True)):
        height = (_HEIGHT - _BOTTOM) * bad / max(1, all_)
        x, width = _x(number * _WINDOW_SECONDS, until), (_WIDTH - _LEFT) * _WINDOW_SECONDS / until
        y = _HEIGHT - _BOTTOM - height
        bars.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="#b33" opacity=".35"/>'
        )
    return "".join(bars)
