"""Facts of one real GPU, printed as JSON: what our reader and our comparison say where no stand-in is between.

    PYTHONPATH=engine python tests/gpu/on_a_gpu.py        # needs nvidia-ml-py, torch, pydantic; about a minute

It changes no setting and makes no fault. What it found is in docs/measurements.md.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pynvml
from r1_engine import gpu, gpu_health, hardware, image, xids
from r1_engine.expected import ExpectedHardware

CARDS = Path(__file__).parents[2] / "operator/r1_operator/planning/hardware.json"
MIB = 1024 * 1024
ONE_RANK = """
import json, os, torch, torch.distributed as dist
def mib(): free, total = torch.cuda.mem_get_info(0); return {"freeMib": free >> 20, "totalMib": total >> 20}
torch.cuda.init(); torch.zeros(1, device="cuda")
facts = {"afterContext": mib()}
one = {"init_method": "tcp://127.0.0.1:29533", "rank": 0, "world_size": 1}
dist.init_process_group("nccl", device_id=torch.device("cuda", 0), **one)
dist.all_reduce(torch.ones(1 << 20, device="cuda")); torch.cuda.synchronize()
torch.cuda.empty_cache()
facts["afterGroup"] = mib()
a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16); (a @ a).sum().item(); del a; torch.cuda.empty_cache()
facts["afterMatmul"] = mib()
p = torch.cuda.get_device_properties(0)
facts["torch"] = {"version": torch.__version__, "cuda": torch.version.cuda, "nccl": list(torch.cuda.nccl.version())}
facts["device"] = {"name": p.name, "totalMib": p.total_memory >> 20, "capability": [p.major, p.minor]}
print("FACTS " + json.dumps(facts), flush=True)
dist.destroy_process_group()
"""
HOLD = """
import torch, time
held = torch.empty(40 << 30, dtype=torch.uint8, device="cuda")
print("held", flush=True)
time.sleep(600)
"""


def main() -> None:
    facts: dict[str, Any] = {}
    for name, step in (
        ("reading", _reading),
        ("everythingElse", _more),
        ("verdicts", _verdicts),
        ("events", _events),
        ("memory", _memory),
        ("takenByAnother", _taken),
        ("machine", _machine),
    ):
        began = time.monotonic()
        try:
            facts[name] = step()
        except Exception as error:  # one fact that cannot be had must not hide the others
            facts[name] = {"failed": f"{type(error).__name__}: {error}"}
        facts[name]["seconds"] = round(time.monotonic() - began, 2)
    print(json.dumps(facts, indent=1, default=str))


def _reading() -> dict[str, Any]:
    """As the agent's /status shows it."""
    began = time.monotonic()
    found = gpu.read_gpus()
    once = time.monotonic() - began
    return {"report": gpu_health.report(found), "error": found.error, "readMs": round(once * 1000, 1)}


def _more() -> dict[str, Any]:
    pynvml.nvmlInit()
    try:
        h = pynvml.nvmlDeviceGetHandleByIndex(0)
        asked: dict[str, Callable[[], Any]] = {
            "cudaDriverV1": pynvml.nvmlSystemGetCudaDriverVersion,
            "cudaDriverV2": pynvml.nvmlSystemGetCudaDriverVersion_v2,
            "nvml": pynvml.nvmlSystemGetNVMLVersion,
            "memoryV1": lambda: _fields(pynvml.nvmlDeviceGetMemoryInfo(h), "total", "free", "used"),
            "memoryV2": lambda: _fields(
                pynvml.nvmlDeviceGetMemoryInfo(h, pynvml.nvmlMemory_v2), "total", "reserved", "free", "used"
            ),
            "migMode": lambda: pynvml.nvmlDeviceGetMigMode(h),
            "maxMig": lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(h),
            "eccMode": lambda: pynvml.nvmlDeviceGetEccMode(h),
            "remappedRows": lambda: list(pynvml.nvmlDeviceGetRemappedRows(h)),
            "nvlinks": lambda: [_try(lambda i=i: pynvml.nvmlDeviceGetNvLinkState(h, i)) for i in range(19)],
            "supportedEvents": lambda: hex(pynvml.nvmlDeviceGetSupportedEventTypes(h)),
            "brand": lambda: pynvml.nvmlDeviceGetBrand(h),
            "persistence": lambda: pynvml.nvmlDeviceGetPersistenceMode(h),
            "computeMode": lambda: pynvml.nvmlDeviceGetComputeMode(h),
            "pciDeviceId": lambda: hex(pynvml.nvmlDeviceGetPciInfo(h).pciDeviceId),
            "numaNode": lambda: pynvml.nvmlDeviceGetNumaNodeId(h),
            "throttle": lambda: hex(pynvml.nvmlDeviceGetCurrentClocksEventReasons(h)),
            "errorWords": lambda: {c: str(pynvml.NVMLError(c)) for c in (3, 9, 10, 12, 15, 16, 18, 999)},
        }
        return {name: _try(question) for name, question in asked.items()}
    finally:
        pynvml.nvmlShutdown()


def _verdicts() -> dict[str, Any]:
    """Our comparison with this card's own profile, with another's, and with twice as many."""
    found = gpu.read_gpus()
    cards = {card["name"]: card for card in json.loads(CARDS.read_text())}
    name = (found.devices[0].name or "").replace("NVIDIA ", "").split(" ")[0]
    own = cards.get(name, cards["H100"])
    cuda = image.image_cuda(os.environ)
    cases = {
        f"{own['name']}x1": (own, 1, cuda),
        f"{own['name']}x2": (own, 2, cuda),
        "H20x1": (cards["H20"], 1, cuda),
        "B200x1": (cards["B200"], 1, cuda),
        "an image for CUDA 99": (own, 1, 99000),
    }
    told: dict[str, Any] = {"imageCuda": cuda, "unknown": hardware.unknown(found, _expected(own, 1))}
    for case, (card, count, image_cuda) in cases.items():
        problem = hardware.problem(found, _expected(card, count), image_cuda)
        told[case] = None if problem is None else asdict(problem)
    return told


def _expected(card: dict[str, Any], count: int) -> ExpectedHardware:
    return ExpectedHardware(
        profile=f"{card['name']}x{count}",
        gpus=count,
        products=tuple(card.get("products", ())),
        memory_mib=card["memoryMib"],
        compute_capability=card["computeCapability"] or None,
    )


def _events() -> dict[str, Any]:
    """Whether this container may listen for Xids."""
    heard: list[str] = []
    warned: list[str] = []
    stop = threading.Event()
    thread = threading.Thread(target=xids.listen, args=(lambda x: heard.append(str(x)), warned.append, stop))
    thread.start()
    time.sleep(4)
    still = thread.is_alive()
    stop.set()
    thread.join(10)
    return {"listening": still, "warned": warned, "heard": heard}


def _memory() -> dict[str, Any]:
    """What a context, a process group and cuBLAS leave free, and NCCL's own words."""
    environment = os.environ | {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET,ENV"}
    done = subprocess.run(
        [sys.executable, "-c", ONE_RANK], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    lines = done.stdout.splitlines()
    facts = next((json.loads(line.removeprefix("FACTS ")) for line in lines if line.startswith("FACTS ")), {})
    nccl = [line for line in lines if "NCCL" in line][:80]
    return {**facts, "exit": done.returncode, "nccl": nccl, "stderr": done.stderr.splitlines()[-15:]}


def _taken() -> dict[str, Any]:
    """Another process with 40 GiB: what our check says, who NVML says it is, how long it takes to be free again."""
    idle = _used()
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    own = json.loads(CARDS.read_text())[0] | {"products": [], "computeCapability": 0}
    found = gpu.read_gpus()
    total = (found.devices[0].memory_total or 0) // MIB
    problem = hardware.problem(found, _expected(own | {"memoryMib": total}, 1), None)
    facts: dict[str, Any] = {"idleMib": idle, "heldMib": _used(), "verdict": problem and asdict(problem)}
    pynvml.nvmlInit()
    try:
        running = pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(0))
        facts["processes"] = [{"pid": p.pid, "mib": (p.usedGpuMemory or 0) // MIB} for p in running]
        facts["holderPid"] = holder.pid
    finally:
        pynvml.nvmlShutdown()
    holder.send_signal(signal.SIGKILL)
    began = time.monotonic()
    holder.wait()
    facts["endedAfterSeconds"] = round(time.monotonic() - began, 2)
    while (used := _used()) > hardware.IN_USE_MIB and time.monotonic() - began < 60:
        time.sleep(0.05)
    return facts | {"freeAfterSeconds": round(time.monotonic() - began, 2), "leftMib": used}


def _used() -> int:
    return (gpu.read_gpus().devices[0].memory_used or 0) // MIB


def _machine() -> dict[str, Any]:
    """What else the checks of a GPU node read."""
    query = "name,memory.total,memory.reserved,memory.used,driver_version,mig.mode.current,ecc.mode.current,compute_cap"
    smi = subprocess.run(
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv"], capture_output=True, text=True, check=False
    )
    files = {
        path: Path(path).exists()
        for path in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/gdrdrv", "/dev/infiniband", "/sys/module/nvidia_peermem")
    }
    text = {path: _try(lambda p=path: Path(p).read_text()[:3000]) for path in ("/proc/driver/nvidia/params",)}
    hcas = _try(lambda: sorted(p.name for p in Path("/sys/class/infiniband").iterdir()))
    wanted = ("NVIDIA_", "CUDA_", "NCCL_", "NV_CUDA_", "LD_LIBRARY_PATH")
    variables = {k: v for k, v in os.environ.items() if k.startswith(wanted)}
    return {"nvidiaSmi": smi.stdout, "files": files, "text": text, "infiniband": hcas, "environment": variables}


def _fields(value: Any, *names: str) -> dict[str, int]:
    return {name: int(getattr(value, name)) for name in names}


def _try(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
