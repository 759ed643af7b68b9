"""The agent itself, as a pod runs it: on a node with other GPUs than planned for, and when one of its GPUs faults."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from r1_engine.gpu_watch import GpuWatch
from r1_operator.telemetry.agent import AgentStatus, parse_status

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


async def test_the_agents_account_follows_an_xid_at_once(gpus: Gpus) -> None:
    changed, said = asyncio.Event(), []
    watch = GpuWatch(changed.set, said.append)
    task = asyncio.create_task(watch.run())
    try:
        async with asyncio.timeout(20):
            while not watch.xids:  # the event set sees what comes after it
                gpus.xid(4, 79)
                changed.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), 0.2)
            while watch.report["message"] != "unhealthy: 4":
                changed.clear()
                await changed.wait()
    finally:
        task.cancel()
    assert watch.report["devices"][4]["message"] == "Xid 79 (the GPU has fallen off the bus)"
    assert [(x["xid"], x["index"], x["severity"]) for x in watch.report["xids"]] == [(79, 4, "Gpu")]
    assert len(said) == 1, "each number and GPU is said once, however often it comes"
    told = parse_status(
        {
            **dict.fromkeys(("stage", "message"), ""),
            **dict.fromkeys(("since", "nodeIndex", "inFlight"), 0),
            "nodes": [],
            "timings": {},
            "gpus": json.loads(json.dumps(watch.report)),
        }
    )
    assert isinstance(told, AgentStatus)
    assert told.sick_gpus == ("GPU 4: Xid 79 (the GPU has fallen off the bus)",)
