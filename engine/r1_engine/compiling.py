"""Does the engine compile kernels just now? A rank that does may be silent for minutes, and nothing is wrong with it.

SGLang compiles every variant of a DeepGEMM kernel when a layout needs that kernel for the first time, perhaps long
after its start, and lets all ranks wait ("typically 10-20 mins", says its deep_gemm_wrapper/compile_utils.py). DeepGEMM
as it is set there, Triton, FlashInfer and inductor run compilers as child processes, and a frozen rank has none.
"""

from __future__ import annotations

from collections.abc import Iterable

from r1_engine import processes

# nvcc with its stages; the host's compilers and linkers, and what calls them.
_CUDA = ("nvcc", "cudafe++", "cicc", "ptxas", "fatbinary", "nvlink", "cuobjdump")
_HOST = ("ninja", "cc", "c++", "gcc", "g++", "cc1", "cc1plus", "clang", "clang++", "as", "ld")
COMPILERS = frozenset(_CUDA + _HOST)


def compiles(titles: Iterable[str]) -> bool:
    """Whether one of the processes with these titles is a compiler."""
    return any(processes.program(title) in COMPILERS for title in titles)


class Clock:
    """Adds up the seconds in which a compiler ran on any node; `seconds` never falls."""

    def __init__(self, now: float) -> None:
        self.seconds = 0.0
        self._at = now

    def tick(self, now: float, compiling: bool) -> None:
        """To be called about once a second: what is seen counts for the time since the last call."""
        self.seconds += now - self._at if compiling else 0.0
        self._at = now
