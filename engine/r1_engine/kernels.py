"""Where SGLang keeps the kernels it compiles: 10 to 20 minutes of a start where there are none yet.

All of them (DeepGEMM, Triton, inductor, CuTe, FlashInfer, the driver's own) lie below one variable's folder (SGLang
0.5.23, `environ.py`). One that cannot be written to costs time, and no start.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

CACHE_VARIABLE = "SGLANG_CACHE_DIR"
FAST_WARM_UP = {"SGLANG_JIT_DEEPGEMM_FAST_WARMUP": "1"}
"""DeepGEMM's shapes in steps, 3,072 of them in place of 16,384 and more (`compile_utils.py`)."""


def variables(folder: Path | None, said: Mapping[str, str], log: Callable[[str], None]) -> dict[str, str]:
    """What the server is told of the cache; nothing where there is none, where the user has `said` another place, or
    where the folder cannot be used, which is logged with the remedy."""
    if folder is None or CACHE_VARIABLE in said:
        return {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = error.strerror or type(error).__name__
        log(
            f"spec.engine.cache: {folder}: {why}. Kernels are compiled anew in this pod; let its user (uid of "
            "spec.engine.securityContext) write there, or free some of the disk"
        )
        return {}
    log(f"Compiled kernels are kept in {folder}.")
    return {CACHE_VARIABLE: str(folder)}
