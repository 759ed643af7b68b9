"""What the real nvidia-ml-py reads of a stand-in for NVIDIA's library, compared with what was planned."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue

import pytest
from r1_engine import gpu, gpu_health, hardware, xids
from r1_engine.config import ConfigError
from r1_engine.expected import ExpectedHardware
from r1_engine.preflight import check_hardware

from tests.gpu.nvml import Gpus

H100X8 = ExpectedHardware(
    profile="H100x8", gpus=8, products=("NVIDIA-H100-80GB-HBM3",), memory_mib=81559, compute_capability=90
)
CUDA_12 = 12080
A100 = ("* name NVIDIA A100-SXM4-80GB", "* memory.total 85899345920", "* compute.major 8")


def verdict(expected: ExpectedHardware = H100X8, image_cuda: int | None = CUDA_12) -> hardware.Problem | None:
    return hardware.problem(gpu.read_gpus(), expected, image_cuda)


def test_the_gpus_that_were_planned_for_are_no_problem(gpus: Gpus) -> None:
    found = gpu.read_gpus()
    assert verdict() is None
    assert hardware.unknown(found, H100X8) == ""
    report = gpu_health.report(found)
    assert (report["message"], report["driverVersion"], report["cudaDriverVersion"]) == (
        "8 healthy",
        "570.158.01",
        "12.8",
    )
    first = report["devices"][0]
    assert first["name"] == "NVIDIA H100 80GB HBM3"
    assert first["memoryTotalBytes"] // 2**20 == 81559
    assert (first["computeCapability"], first["mig"], first["nvlinks"]) == (90, False, {"up": 18, "of": 18})


@pytest.mark.parametrize(
    ("lines", "reason", "words"),
    [
        (A100, "HardwareMismatch", "8 × NVIDIA-A100-SXM4-80GB, and not NVIDIA-H100-80GB-HBM3"),
        (("* count 7",), "HardwareMismatch", "the pod has 7 of 8 GPUs of profile H100x8"),
        (("3 error 15",), "GpuUnhealthy", "GPU 3: GPU is lost"),
        (("3 error 16",), "GpuUnhealthy", "GPU 3: GPU requires restart"),
        (("2 error.DeviceGetName 15",), "GpuUnhealthy", "GPU 2: GPU is lost"),
        (("5 rows.failed 1",), "GpuUnhealthy", "GPU 5: its memory has rows that cannot be replaced"),
        (("6 mig 1",), "HardwareMismatch", "GPU 6 is split by MIG"),
        # Time slicing hands out fewer GPUs than were asked for, or one of them twice.
        (("* count 2",), "HardwareMismatch", "the pod has 2 of 8 GPUs"),
        (("1 uuid GPU-1", "4 uuid GPU-1"), "HardwareMismatch", "one GPU is handed out several times (GPU-1)"),
        (("* memory.total 102625181696",), "HardwareMismatch", "GPUs of 97871 MiB, and not 81559"),
        (("* driver 550.54.15", "* cuda 11080"), "DriverTooOld", "driver 550.54.15 runs CUDA up to 11.8"),
        (("7 memory.used 40000000000",), "GpuNotFree", "GPU 7 (38146 MiB)"),
        (("* init 18",), "DriverUnusable", "version mismatch"),
    ],
)
def test_what_does_not_fit_is_told_with_a_remedy(gpus: Gpus, lines: tuple[str, ...], reason: str, words: str) -> None:
    gpus.say(*lines)
    problem = verdict()
    assert problem is not None
    assert problem.reason == reason
    assert words in problem.why
    assert problem.remedy


def test_another_board_of_the_same_size_is_told_by_its_name_alone(gpus: Gpus) -> None:
    gpus.say("* name NVIDIA H800")
    assert verdict() is not None
    own = H100X8.model_copy(update={"products": ()})  # a profile of one's own that names no board
    assert verdict(own) is None


def test_an_image_for_a_newer_cuda_needs_the_driver_for_it(gpus: Gpus) -> None:
    assert verdict(image_cuda=12090) is None  # any driver for CUDA 12 runs it
    problem = verdict(image_cuda=13000)
    assert problem is not None
    assert problem.reason == "DriverTooOld"
    assert "570.158.01" in problem.why
    assert "driver 580 or newer" in problem.remedy
    assert verdict(image_cuda=None) is None  # an image that does not say


def test_what_cannot_be_read_is_unknown_and_no_mismatch(gpus: Gpus) -> None:
    gpus.say(*(f"* error.{name} 3" for name in ("DeviceGetName", "DeviceGetMemoryInfo_v2", "DeviceGetMemoryInfo")))
    assert verdict() is None
    assert "name, memory, memory in use" in hardware.unknown(gpu.read_gpus(), H100X8)
    gpus.say("* init 999")
    assert verdict() is None
    assert "not compared" in hardware.unknown(gpu.read_gpus(), H100X8)
    without = hardware.problem(gpu.read_gpus(), H100X8, None, devices=False)
    assert without is not None
    assert "the pod has none" in without.why


def test_more_gpus_than_planned_are_a_privileged_pod_and_no_mismatch(gpus: Gpus) -> None:
    gpus.say("5 memory.used 40000000000")  # another pod's
    assert verdict(H100X8.model_copy(update={"gpus": 4})) is None


def test_contained_errors_and_replaced_rows_do_not_make_a_gpu_sick(gpus: Gpus) -> None:
    gpus.say("4 ecc.volatile.uncorrected 2", "4 rows.uncorrected 1")
    assert gpu_health.report(gpu.read_gpus())["message"] == "8 healthy"
    # A GPU that cannot replace rows has lost data wherever it counts such an error.
    gpus.say("4 ecc.volatile.uncorrected 2", "4 error.DeviceGetRemappedRows 3")
    device = gpu_health.report(gpu.read_gpus())["devices"][4]
    assert (device["healthy"], device["message"]) == (False, "2 uncorrected ECC errors")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("4 rows.pending 1", "a row of its memory is replaced at the next reset"),
        ("4 nvlink.7.state 0", "1 of its 18 NVLinks are down"),
        ("4 nvlink.state 0", "18 of its 18 NVLinks are down"),
    ],
)
def test_what_wants_a_reset_refuses_no_start_and_is_told_as_unhealthy(gpus: Gpus, fault: str, told: str) -> None:
    gpus.say(fault)
    device = gpu_health.report(gpu.read_gpus())["devices"][4]
    assert (device["healthy"], device["message"]) == (False, told)
    assert verdict() is None


def test_cards_without_nvlink_lack_none(gpus: Gpus) -> None:
    gpus.say("* nvlink.state 0")
    assert gpu_health.report(gpu.read_gpus())["message"] == "8 healthy"


def test_memory_that_is_given_back_is_waited_for(gpus: Gpus) -> None:
    gpus.say("* cuda 13000", "7 memory.used 40000000000")
    waits: list[str] = []

    def wait(text: str) -> None:
        waits.append(text)
        gpus.say("* cuda 13000")

    check_hardware(H100X8, {}, wait)
    assert len(waits) == 1
    gpus.say("* cuda 13000", "7 memory.used 40000000000")
    with pytest.raises(ConfigError, match=r"GPU 7 \(38146 MiB\).*End the other process") as error:
        check_hardware(H100X8, {}, waits.append, freed_seconds=0)
    assert error.value.reason == "GpuNotFree"


@pytest.fixture
def heard(gpus: Gpus) -> Callable[[], xids.Xid]:
    """Waits for the next Xid."""
    queue: Queue[xids.Xid] = Queue()
    stop, registered = threading.Event(), threading.Event()
    thread = threading.Thread(target=xids.listen, args=(queue.put, lambda _: None, stop), daemon=True)
    thread.start()
    # Event sets see what comes after them: the first event is repeated until one has come.
    while not registered.is_set():
        gpus.xid(0, 45)
        try:
            queue.get(timeout=0.2)
            registered.set()
        except Exception:
            continue
    return lambda: queue.get(timeout=10)


def test_xids_are_heard_while_it_runs_with_whose_fault_they_are(gpus: Gpus, heard: Callable[[], xids.Xid]) -> None:
    told = []
    for number in (79, 94, 31):
        gpus.xid(4, number)
        xid = heard()
        while xid.number == 45:
            xid = heard()
        told.append(xid)
    assert [(x.index, x.number, x.severity) for x in told] == [
        (4, 79, "Gpu"),
        (4, 94, "Contained"),
        (4, 31, "Application"),
    ]
    devices = gpu_health.report(gpu.read_gpus(), told)["devices"]
    assert [d["index"] for d in devices if not d["healthy"]] == [4]
    assert devices[4]["message"] == "Xid 79 (the GPU has fallen off the bus); Xid 94 (contained memory error)"
