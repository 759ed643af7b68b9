"""What can be refused before anything is started: GPUs and model directory. Seconds instead of a load of minutes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from r1_engine import hardware, model_match
from r1_engine.config import ConfigError
from r1_engine.expected import ExpectedHardware, ExpectedModel
from r1_engine.gpu import Found, read_gpus
from r1_engine.image import image_cuda

_MOUNT = "Check spec.model.weights: the claim or host path, and path in it, must hold the model's files"
# A gang before this one may have ended a moment ago, and the driver is still giving 80 GB a GPU back.
_FREED_SECONDS = 30.0
_DEVICE_FILES = ("/dev/nvidiactl", "/dev/dxg")  # the latter under WSL


def check_hardware(
    expected: ExpectedHardware,
    environ: Mapping[str, str],
    log: Callable[[str], None],
    read: Callable[[], Found] = read_gpus,
    freed_seconds: float = _FREED_SECONDS,
) -> None:
    """Raises ConfigError when these are not the GPUs that were planned for, or not free. Waits `freed_seconds` for
    memory that a process which has just ended gives back."""
    deadline = time.monotonic() + freed_seconds
    cuda, devices = image_cuda(environ), any(map(os.path.exists, _DEVICE_FILES))
    while True:
        found = read()
        problem = hardware.problem(found, expected, cuda, devices=devices)
        if problem is None or problem.reason != hardware.NOT_FREE or time.monotonic() >= deadline:
            break
        log(f"Waiting for free GPUs: {problem.why}")
        time.sleep(1.0)
    if unknown := hardware.unknown(found, expected):
        log(unknown)
    if problem is not None:
        raise ConfigError("GPUs", problem.why, problem.remedy, problem.reason)


def check_model(path: Path, expected: ExpectedModel | None = None) -> None:
    """Raises ConfigError naming the file, the reason and the remedy."""
    if not path.is_dir():
        raise ConfigError(str(path), "is not a directory", _MOUNT, "ModelPathMissing")
    config = _json(path / "config.json", "ModelConfigInvalid")
    if not isinstance(config, dict) or not config.get("architectures"):
        raise ConfigError(
            str(path / "config.json"), "names no architectures", "Use the config.json published with the model",
            "ModelConfigInvalid",
        )  # fmt: skip
    if expected is not None:
        beside = (path / "hf_quant_config.json").is_file()
        if why := model_match.mismatch(config, expected, quantized_beside=beside):
            raise ConfigError(str(path / "config.json"), why, model_match.remedy(expected), "ModelMismatch")
    tokenizers = [path / name for name in ("tokenizer.json", "tokenizer.model", "tiktoken.model")]
    if not any(file.is_file() for file in tokenizers):
        for file in tokenizers:
            _check_link(file, "TokenizerMissing")
        raise ConfigError(
            str(path / "tokenizer.json"), "is missing", "Copy the model's tokenizer files next to its weights",
            "TokenizerMissing",
        )  # fmt: skip
    _json(path / "tokenizer_config.json", "TokenizerMissing")
    _check_weights(path)


def _check_weights(path: Path) -> None:
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        _check_link(index, "WeightsIncomplete")
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
            _check_link(path / missing[0], "WeightsIncomplete")
            shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
            raise ConfigError(
                str(path), f"lacks {len(missing)} of {len(files)} weight files ({shown})", "Finish the download",
                "WeightsIncomplete",
            )  # fmt: skip
    for file in files:
        if not file.exists():
            _check_link(file, "WeightsIncomplete")
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


def _check_link(file: Path, reason: str) -> None:
    """Hugging Face's cache keeps a model's files as links into a folder beside it, which its own mount leaves out."""
    if not file.is_symlink():
        return
    target = str(file.readlink())
    why = f"is a link to {target}, which is not in this pod"
    remedy = (
        "Hugging Face's cache keeps the files themselves in blobs/. Mount the cache whole and say the snapshot in "
        "spec.model.weights.path, or put files in their place (cp -rL, or hf download --local-dir)"
        if "blobs" in target
        else "Put the file itself there, or keep what it leads to in the folder of spec.model.weights"
    )
    raise ConfigError(str(file), why, remedy, reason)


def _json(file: Path, reason: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        _check_link(file, reason)
        raise ConfigError(str(file), "is missing", _MOUNT, reason) from None
    except (OSError, ValueError) as error:
        raise ConfigError(str(file), f"cannot be read as JSON ({error})", "Copy the file again", reason) from None
