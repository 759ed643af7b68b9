"""The CUDA that this image was built for, without importing PyTorch, which takes seconds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

_TORCH = re.compile(r"^cuda\b.*=\s*'(\d+)\.(\d+)'", re.MULTILINE)
_VARIABLE = re.compile(r"(\d+)\.(\d+)")


def image_cuda(environ: Mapping[str, str]) -> int | None:
    """1000 × major + 10 × minor of the CUDA that the image's PyTorch is built for, or else of the image's CUDA_VERSION;
    None if neither says."""
    return _torch() or _number(_VARIABLE.match(environ.get("CUDA_VERSION", "")))


def _torch() -> int | None:
    spec = find_spec("torch")
    folder = spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else None
    try:
        return _number(_TORCH.search((Path(folder) / "version.py").read_text(encoding="utf-8"))) if folder else None
    except OSError:
        return None


def _number(match: re.Match[str] | None) -> int | None:
    return int(match[1]) * 1000 + int(match[2]) * 10 if match else None
