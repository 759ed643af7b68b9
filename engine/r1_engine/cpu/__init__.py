"""CPU mode: real SGLang on a machine without a GPU, for tests and for trying out. Used only when `device` is `cpu`.

This module is pure (arguments and environment). `patches` changes SGLang and is imported only in the engine's own
processes, by `r1_engine.serve`, when R1_CPU_MODE says so.
"""

from __future__ import annotations

from collections.abc import Sequence

MODE_VARIABLE = "R1_CPU_MODE"

# flag -> value (None: the flag stands alone). What the user gives wins.
_DEFAULTS: dict[str, str | None] = {
    "--device": "cpu",
    "--attention-backend": "torch_native",
    "--sampling-backend": "pytorch",
    "--disable-overlap-schedule": None,
    "--cuda-graph-backend-decode": "disabled",
    "--cuda-graph-backend-prefill": "disabled",
    # Memory per rank cannot be measured when cores are bound by hand (SGLang says so): size the KV cache by tokens.
    "--max-total-tokens": "20000",
    "--mem-fraction-static": "0.1",
    # Two cores must carry all ranks; an idle rank otherwise spins.
    "--sleep-on-idle": None,
    # Readiness sends a token through every rank anyway, and nothing is compiled on CPU.
    "--skip-server-warmup": None,
}


def arguments(given: Sequence[str]) -> list[str]:
    """The flags CPU mode needs, without those the user set."""
    taken = {argument.split("=", 1)[0] for argument in given}
    argv: list[str] = []
    for flag, value in _DEFAULTS.items():
        if flag not in taken:
            argv += [flag] if value is None else [flag, value]
    return argv


def environment(ranks: int, cores: Sequence[int], node_index: int) -> dict[str, str]:
    """One core a rank, the nodes beginning at different ones: "nodes" on one machine share its cores."""
    bind = "|".join(str(cores[(rank + node_index) % len(cores)]) for rank in range(ranks))
    return {
        MODE_VARIABLE: "1",
        "SGLANG_USE_CPU_ENGINE": "1",
        "SGLANG_CPU_OMP_THREADS_BIND": bind,
        # Several ranks share few cores: more threads a rank only wait for each other at the end of each operation.
        "OMP_NUM_THREADS": "1",
        # PyPI's torch is the CUDA build: SGLang would find its libnccl and then fail with "Expected a cuda device".
        "SGLANG_NCCL_SO_PATH": "none",
        # Saves a compilation of about 25 s at the first token.
        "TORCHDYNAMO_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
