"""A model directory that cannot be served is refused before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from r1_engine.config import ConfigError
from r1_engine.preflight import check_model


def shard(path: Path, name: str) -> None:
    header = json.dumps({name: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"architectures": ["DeepseekV3ForCausalLM"]}')
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    shard(tmp_path / "a.safetensors", "x")
    shard(tmp_path / "b.safetensors", "y")
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_a_complete_directory_passes(model: Path) -> None:
    check_model(model)
    (model / "model.safetensors.index.json").unlink()
    check_model(model)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "reason", "words"),
    [
        (lambda m: (m / "config.json").unlink(), "ModelConfigInvalid", "config.json: is missing"),
        (lambda m: (m / "config.json").write_text("{}"), "ModelConfigInvalid", "names no architectures"),
        (lambda m: (m / "tokenizer.json").unlink(), "TokenizerMissing", "tokenizer.json: is missing"),
        (lambda m: (m / "b.safetensors").unlink(), "WeightsIncomplete", "lacks 1 of 2 weight files (b.safetensors)"),
        (lambda m: truncate(m / "b.safetensors"), "WeightsIncomplete", "b.safetensors: is damaged"),
        (lambda m: (m / "a.safetensors").write_text("version https://git-lfs"), "WeightsIncomplete", "is damaged"),
        (lambda m: (m / "model.safetensors.index.json").write_text("{"), "WeightsIncomplete", "cannot be read as JSON"),
    ],
)
def test_what_is_wrong_is_named(model: Path, damage: Callable[[Path], None], reason: str, words: str) -> None:
    damage(model)
    with pytest.raises(ConfigError) as caught:
        check_model(model)
    assert caught.value.reason == reason
    assert words in str(caught.value)
    assert caught.value.remedy


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: is not a directory\. Check spec\.model\.weights"):
        check_model(tmp_path / "nowhere")
