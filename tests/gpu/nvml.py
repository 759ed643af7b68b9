"""Builds the stand-in for libnvidia-ml.so.1 from nvml.c, and writes what its GPUs are to say.

NVIDIA's header comes with the package nvidia-nvml-dev; it is kept nowhere in this repository. Functions of it that
nvml.c lacks answer "not supported", as an older driver's do.
"""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import files
from pathlib import Path

SONAME = "libnvidia-ml.so.1"
_DECLARED = re.compile(r"DECLDIR\s+(nvml\w+)\s*\(")
_NOT_SUPPORTED = 3  # NVML_ERROR_NOT_SUPPORTED


def build(folder: Path) -> Path:
    """The library, in `folder`; takes about 2 s."""
    header = next(Path(str(f.locate())) for f in files("nvidia-nvml-dev") or () if f.name == "nvml.h")
    source, compiled, rest = Path(__file__).with_name("nvml.c"), folder / "nvml.o", folder / "rest.c"
    _run("gcc", "-c", "-fPIC", "-O1", "-Wno-deprecated-declarations", f"-I{header.parent}", "-o", compiled, source)
    have = {line.split()[-1] for line in _run("nm", "-g", "--defined-only", compiled).splitlines()}
    lacking = sorted(set(_DECLARED.findall(header.read_text(encoding="utf-8", errors="replace"))) - have)
    rest.write_text("".join(f"int {name}(void) {{ return {_NOT_SUPPORTED}; }}\n" for name in lacking))
    library = folder / SONAME
    _run("gcc", "-shared", "-fPIC", f"-Wl,-soname,{SONAME}", "-o", library, compiled, rest)
    return library


def _run(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


class Gpus:
    """The file that the stand-in reads at every call. Lines: `DEVICE KEY VALUE`, DEVICE an index or * (nvml.c)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.say()

    def say(self, *lines: str) -> None:
        """From now on the GPUs are healthy H100s but for these lines."""
        new = self.path.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in lines))
        new.rename(self.path)

    def xid(self, device: int, number: int) -> None:
        """One event for every event set that waits for this device."""
        with self.path.with_name(f"{self.path.name}.xids").open("a") as events:
            events.write(f"{device} {number}\n")
