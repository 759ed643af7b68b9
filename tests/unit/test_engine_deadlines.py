"""Limits of time that change while the engine runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from r1_engine.config import EngineConfig, Pod, Settings
from r1_engine.deadlines import Deadlines, deadlines


def settings(file: Path | None) -> Settings:
    said = {"startSeconds": 600, "stallSeconds": 300, "drainSeconds": 60}
    told = {"deployment": "r1", "replica": 0, "attempt": 0, "nodes": 1, "gpusPerNode": 1, "headAddress": "h"}
    config = EngineConfig.model_validate({**told, **said, "servedName": "m", "modelPath": "/models"})
    pod = Pod(name="p", ip="10.0.0.1", node_name="n", index=0)
    return Settings(config=config, pod=pod, token="t", limits_file=file)


FIRST = Deadlines(600, 300, 60)


def test_they_are_read_anew_each_time(tmp_path: Path) -> None:
    """L12: a start that loads must hear that it may take longer."""
    file = tmp_path / "limits.json"
    asked = settings(file)
    assert deadlines(asked) == FIRST, "an operator of before wrote none"
    file.write_text('{"startSeconds": 7200, "stallSeconds": 900, "drainSeconds": 1200}')
    assert deadlines(asked) == Deadlines(7200, 900, 1200)
    file.write_text('{"startSeconds": 100, "stallSeconds": 900}')
    assert deadlines(asked) == Deadlines(100, 100, 60)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"startSeconds": "7200"}', '{"startSeconds": true, "drainSeconds": -1}', '{"startSeconds": 0}'],
)
def test_what_cannot_be_read_changes_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "limits.json").write_text(text)
    assert deadlines(settings(tmp_path / "limits.json")) == FIRST
    assert deadlines(settings(None)) == FIRST
