"""The agent itself, as a pod runs it, on a node with other GPUs than planned for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.gpu.nvml import Gpus
from tests.ports import free_port

EXPECTED = {
    "profile": "H100x8",
    "gpus": 8,
    "products": ["NVIDIA-H100-80GB-HBM3"],
    "memoryMib": 81559,
    "computeCapability": 90,
}


def test_an_engine_on_other_gpus_ends_in_seconds_with_78_and_says_where(
    gpus: Gpus, library: Path, tmp_path: Path
) -> None:
    gpus.say("* name NVIDIA A100-SXM4-80GB", "* compute.major 8")
    config = tmp_path / "engine.json"
    config.write_text(
        json.dumps(
            {
                "deployment": "r1",
                "replica": 0,
                "attempt": 0,
                "nodes": 1,
                "gpusPerNode": 8,
                "device": "cuda",
                "headAddress": "127.0.0.1",
                "servedName": "r1",
                "modelPath": str(tmp_path),
                "ports": {"http": 30000, "agent": free_port(), "ray": 6379, "dist": 25000},
                "expected": {"hardware": EXPECTED},
            }
        )
    )
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(library.parent),
        "FAKE_NVML": str(gpus.path),
        "R1_ENGINE_CONFIG": str(config),
        "R1_RUN_DIR": str(tmp_path / "run"),
        "R1_TERMINATION_LOG": str(tmp_path / "termination"),
        "RAY_AUTH_TOKEN": "secret",
        "POD_NAME": "r1-0-0-0",
        "POD_IP": "127.0.0.1",
        "NODE_NAME": "gpu-7",
        "R1_NODE_INDEX": "0",
    }
    done = subprocess.run([sys.executable, "-m", "r1_engine"], env=environment, timeout=120, check=False)
    assert done.returncode == 78
    told = json.loads((tmp_path / "termination").read_text())
    assert (told["reason"], told["node"]) == ("HardwareMismatch", "gpu-7")
    assert told["message"].startswith("node 0 (gpu-7): GPUs: profile H100x8 is planned, and this node has 8 × NVIDIA-A")
    assert "Set spec.hardware" in told["message"]
