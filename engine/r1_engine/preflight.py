"""What can be refused before anything is started: the model directory. Seconds instead of a failed load of minutes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from r1_engine.config import ConfigError

_MOUNT = "Check spec.model.weights: the claim or host path, and subPath, must hold the model's files"


def check_model(path: Path) -> None:
    """Raises ConfigError naming the file, the reason and the remedy."""
    if not path.is_dir():
        raise ConfigError(str(path), "is not a directory", _MOUNT, "ModelPathMissing")
    config = _json(path / "config.json", "ModelConfigInvalid")
    if not isinstance(config, dict) or not config.get("architectures"):
        raise ConfigError(
            str(path / "config.json"), "names no architectures", "Use the config.json published with the model",
            "ModelConfigInvalid",
        )  # fmt: skip
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "tiktoken.model")):
        raise ConfigError(
            str(path / "tokenizer.json"), "is missing", "Copy the model's tokenizer files next to its weights",
            "TokenizerMissing",
        )  # fmt: skip
    _json(path / "tokenizer_config.json", "TokenizerMissing")
    _check_weights(path)


def _check_weights(path: Path) -> None:
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise ConfigError(str(path), "holds no *.safetensors files", _MOUNT, "WeightsMissing")
    else:
        document = _json(index, "WeightsIncomplete")
        weights = document.get("weight_map") if isinstance(document, dict) else None
        if not weights:
            raise ConfigError(str(index), "has no weight_map", "Download the file again", "WeightsIncomplete")
        files = [path / str(name) for name in sorted(set(weights.values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
            raise ConfigError(
                str(path), f"lacks {len(missing)} of {len(files)} weight files ({shown})", "Finish the download",
                "WeightsIncomplete",
            )  # fmt: skip
    for file in files:
        _check_length(file)


def _check_length(file: Path) -> None:
    """A safetensors file states its own length in its header: a download that broke off is seen without reading it."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if not 0 < size < 100_000_000:  # the format's own limit for a header
                raise ValueError("it does not begin as a safetensors file")
            header = json.loads(stream.read(size))
        expected = 8 + size + max((t["data_offsets"][1] for n, t in header.items() if n != "__metadata__"), default=0)
        actual = file.stat().st_size
        if actual != expected:
            raise ValueError(f"it has {actual} bytes and must have {expected}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            str(file), f"is damaged: {why}", "Copy or download the file again", "WeightsIncomplete"
        ) from None


def _json(file: Path, reason: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(str(file), "is missing", _MOUNT, reason) from None
    except (OSError, ValueError) as error:
        raise ConfigError(str(file), f"cannot be read as JSON ({error})", "Copy the file again", reason) from None
