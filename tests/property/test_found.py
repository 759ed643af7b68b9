"""Comparing what was found with what was planned, over readings of which NVML left anything out."""

from __future__ import annotations

from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st
from r1_engine.expected import ExpectedHardware
from r1_engine.gpu import Device, Found, Rows
from r1_engine.gpu_health import report
from r1_engine.hardware import problem
from r1_engine.xids import Severity, Xid, severity

MIB = 2**20
EXPECTED = ExpectedHardware(
    profile="H100x4", gpus=4, products=("NVIDIA-H100-80GB-HBM3",), memory_mib=81559, compute_capability=90
)
DEVICES = st.builds(
    Device,
    index=st.integers(0, 7),
    name=st.sampled_from([None, "NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"]),
    uuid=st.none(),
    memory_total=st.sampled_from([None, 81559 * MIB, 81000 * MIB, 40960 * MIB]),
    memory_used=st.sampled_from([None, 0, 512 * MIB, 8192 * MIB]),
    compute_capability=st.sampled_from([None, 90, 80]),
    mig=st.sampled_from([None, False, True]),
    rows=st.sampled_from([None, Rows(0, 1, True, False), Rows(0, 9, False, True)]),
    fault=st.sampled_from(["", "", "", "GPU is lost"]),
)
READINGS = st.builds(
    Found,
    st.lists(DEVICES, min_size=3, max_size=6).map(tuple),
    st.just("570.158.01"),
    st.sampled_from([None, 12080, 13000]),
)
COMPARED = [f.name for f in fields(Device) if f.name not in ("index", "fault")]


@given(READINGS, st.sampled_from([None, 12090, 13000]), st.sampled_from(COMPARED), st.integers(0, 2))
def test_what_is_left_out_never_makes_a_mismatch(found: Found, image: int | None, field: str, which: int) -> None:
    known = problem(found, EXPECTED, image)
    devices = list(found.devices)
    devices[which] = replace(devices[which], **{field: None})
    less = problem(replace(found, devices=tuple(devices)), EXPECTED, image)
    assert less is None or known is not None
    assert known is None or (known.why and known.remedy)


@given(READINGS, st.lists(st.builds(Xid, st.integers(1, 200), st.integers(0, 7), st.just(0.0)), max_size=5))
def test_a_program_at_fault_makes_no_gpu_sick(found: Found, xids: list[Xid]) -> None:
    """Nor does a contained error; and whatever is sick has a reason in words."""
    harmless = [x for x in xids if x.severity is not Severity.GPU]
    healthy = [d["healthy"] for d in report(found)["devices"]]
    assert [d["healthy"] for d in report(found, harmless)["devices"]] == healthy
    for device in report(found, xids)["devices"]:
        ill = any(x.index == device["index"] and severity(x.number) is Severity.GPU for x in xids)
        assert device["healthy"] or device["message"]
        assert not (ill and device["healthy"])
