"""Which of SGLang's model modules a model needs. SGLang imports some 250 of them in every scheduler, for about 10 s."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

# SGLang's own switch: names of modules in sglang.srt.models that are not imported.
SKIP_VARIABLE = "SGLANG_DISABLED_MODEL_ARCHS"


def needless_modules(directory: Path, architectures: Sequence[str]) -> list[str]:
    """Modules in `directory` whose text names none of the architectures; none at all when no module names one."""
    modules = {file.stem: file.read_text(encoding="utf-8", errors="replace") for file in directory.glob("*.py")}
    needless = sorted(name for name, text in modules.items() if not any(a in text for a in architectures))
    return needless if len(needless) < len(modules) else []


def skip_list(model_path: Path) -> str:
    """The value of SKIP_VARIABLE for the model in this directory; "" when that cannot be told."""
    try:
        architectures = json.loads((model_path / "config.json").read_text(encoding="utf-8"))["architectures"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # the pre-flight check says what is wrong with it
    package = importlib.util.find_spec("sglang")
    if package is None or not package.submodule_search_locations:
        return ""
    return ",".join(needless_modules(Path(package.submodule_search_locations[0]) / "srt" / "models", architectures))
