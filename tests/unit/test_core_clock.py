"""The clock of all decisions: a wall clock that is set does not move it."""

from __future__ import annotations

import time

import pytest
from r1_operator.controller.clock import steady_clock


def test_setting_the_wall_clock_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = steady_clock()
    before = clock()
    assert abs(before - time.time()) < 60
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= clock() - before < 60
