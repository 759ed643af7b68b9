"""Libraries that let a process see another time of day, and GPUs that fault, built into the environments that the local
cluster's images are made of (no file of the checkout)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.behaviour.operator_process import CHECKOUT
from tests.gpu import nvml

ENVIRONMENTS = (".venv", ".venv-engine")
FOLDER = "share/r1-faults"
INSIDE = f"/opt/venv/{FOLDER}"
"""In a container of such an image."""
CLOCK_FILE, GPUS_FILE = "/tmp/clock", "/tmp/gpus"
"""In an engine's container. As long as they are not there the time is right and all GPUs are healthy."""


def build() -> None:
    """Takes 3 s."""
    for environment in ENVIRONMENTS:
        folder = CHECKOUT / environment / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", folder / "libclock.so", source, "-ldl"], check=True)
        nvml.build(folder)


def engine_environment(engine: str) -> dict[str, str]:
    """Of an engine's container. The stand-in has no GPUs; the real one's agent asks nvidia-ml-py on processors, too."""
    clock = {"LD_PRELOAD": f"{INSIDE}/libclock.so", "R1_CLOCK": CLOCK_FILE}
    return clock if engine == "standin" else {"LD_LIBRARY_PATH": INSIDE, "FAKE_NVML": GPUS_FILE}


def operator_environment(folder: Path) -> dict[str, str]:
    """Of the operator's process, whose clock is off by what is in `folder`/clock."""
    library = CHECKOUT / ENVIRONMENTS[0] / FOLDER / "libclock.so"
    return {"LD_PRELOAD": str(library), "R1_CLOCK": str(folder / "clock")}
