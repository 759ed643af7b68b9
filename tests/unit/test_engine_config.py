"""What an engine pod accepts, and how it says no: the field or file, the reason, the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from r1_engine.config import ConfigError, load_settings

CONTRACT = {
    "deployment": "r1",
    "replica": 0,
    "attempt": 3,
    "nodes": 2,
    "gpusPerNode": 8,
    "device": "cuda",
    "headAddress": "r1-0-3-0.r1-engine.ns.svc",
    "servedName": "deepseek-r1",
    "modelPath": "/models",
    "engineArgs": ["--tp-size", "16"],
    "env": {},
    "attentionDataParallel": 16,
    "startSeconds": 14400,
    "stallSeconds": 1800,
    "drainSeconds": 300,
    "ports": {"http": 30000, "agent": 8500, "ray": 6379, "dist": 25000},
}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "engine.json").write_text(json.dumps(CONTRACT))
    (tmp_path / "ray-token").write_text("secret\n")
    return {
        "R1_ENGINE_CONFIG": str(tmp_path / "engine.json"),
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "ray-token"),
        "POD_NAME": "r1-0-3-1",
        "POD_IP": "10.0.0.7",
        "NODE_NAME": "gpu-7",
        "R1_NODE_INDEX": "1",
    }


def write(environ: dict[str, str], **changes: Any) -> None:
    Path(environ["R1_ENGINE_CONFIG"]).write_text(json.dumps({**CONTRACT, **changes}))


def test_the_contracts_example_is_read(environ: dict[str, str]) -> None:
    settings = load_settings(environ)
    assert settings.config.nodes == 2
    assert settings.config.ports.ray == 6379
    assert settings.token == "secret"
    assert not settings.is_head
    assert settings.label == "node 1 (gpu-7)"
    assert "secret" not in repr(settings)


def test_an_operator_that_knows_no_limit_on_standing_still_limits_the_whole_start(environ: dict[str, str]) -> None:
    assert load_settings(environ).config.may_stand_still == 1800
    document = json.loads(Path(environ["R1_ENGINE_CONFIG"]).read_text())
    del document["stallSeconds"]
    Path(environ["R1_ENGINE_CONFIG"]).write_text(json.dumps(document))
    assert load_settings(environ).config.may_stand_still == 14_400


def test_what_a_newer_operator_says_is_passed_over_and_named(environ: dict[str, str]) -> None:
    assert load_settings(environ).unknown == ()
    write(environ, gpusPerRank=2)
    assert load_settings(environ).unknown == ("gpusPerRank",)


def test_the_promises_of_fifteen_seconds_hold_by_default(environ: dict[str, str]) -> None:
    limits = load_settings(environ).limits
    assert limits.hang + 2 * limits.probe <= 15
    assert limits.lease + 2 * limits.beat <= 15


@pytest.mark.parametrize(
    ("changes", "where", "why"),
    [
        ({"nodes": 0}, "nodes", "greater than or equal to 1"),
        ({"ports": {"grpc": 1}}, "ports.grpc", "Extra inputs"),
        ({"engineArgs": ["--port=1"]}, "engineArgs", "--port is set by the engine itself"),
        ({"attentionDataParallel": 5}, "", "must divide nodes × gpusPerNode = 16"),
        ({"ports": {"http": 8500}}, "ports", "four different ports"),
        ({"device": "tpu"}, "device", "'cuda' or 'cpu'"),
    ],
)
def test_a_wrong_field_is_named(environ: dict[str, str], changes: dict[str, Any], where: str, why: str) -> None:
    write(environ, **changes)
    with pytest.raises(ConfigError) as caught:
        load_settings(environ)
    assert caught.value.where == f"{environ['R1_ENGINE_CONFIG']} {where}".strip()
    assert why in str(caught.value)
    assert "Correct" in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("POD_IP", "", "environment POD_IP: is not set"),
        ("POD_IP", "pod-7", "'pod-7' is not an IP address"),
        ("R1_NODE_INDEX", "2", "2 is not below nodes = 2"),
        ("R1_NODE_INDEX", "first", "environment index"),
        ("RAY_AUTH_TOKEN_PATH", "/nowhere/token", "/nowhere/token: the Ray token cannot be read"),
        ("R1_ENGINE_CONFIG", "/nowhere/engine.json", "/nowhere/engine.json: cannot be read"),
        ("R1_HANG_SECONDS", "soon", "environment R1_*_SECONDS hang"),
    ],
)
def test_a_wrong_variable_is_named(environ: dict[str, str], variable: str, value: str, words: str) -> None:
    environ[variable] = value
    with pytest.raises(ConfigError, match=words.replace("*", r"\*").replace("(", r"\(")):
        load_settings(environ)
