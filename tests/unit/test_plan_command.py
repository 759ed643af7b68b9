"""`r1 plan` as a person and as a program sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from r1_operator.api.parse import parse
from r1_operator.api.types import Limits, R1Deployment, Topology
from r1_operator.cli.main import main
from r1_operator.cli.plan_command import COUNTS

ROOT = Path(__file__).parents[2]
RESOURCE = {
    "apiVersion": "r1operator.dev/v1alpha1",
    "kind": "R1Deployment",
    "metadata": {"name": "r1"},
    "spec": {
        "model": {"name": "deepseek-ai/DeepSeek-R1", "weights": {"hostPath": {"path": "/data"}}},
        "hardware": "H100x8",
    },
}


def test_the_json_carries_what_programs_rely_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--hardware", "H100x8", "-o", "json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["nodesPerReplica"] == 2
    assert body["tensorParallel"] == 16
    assert body["weightBytesPerGpu"] == sum(body["weightPartsPerGpu"].values())
    for key in ("attentionDataParallel", "expertParallel", "redundantExperts", "kvTokensPerRank"):
        assert isinstance(body[key], int)
    assert isinstance(body["engineArgs"], list)
    assert body["reasons"]


def test_every_choice_can_be_fixed_by_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    flags = (
        "--hardware H100x8 --nodes 4 --tensor-parallel 32 --attention-dp 32 --expert-parallel 32 --redundant-experts 32"
    )
    flags += " --moe-a2a-backend DeepEP --context-length 65536 --max-running-requests 1024 --chunked-prefill-size 65536"
    flags += " --memory-fraction-percent 80 --mtp on --kv-cache-dtype fp8_e4m3 --objective Throughput"
    assert main(["plan", *flags.split(), "-o", "json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["nodesPerReplica"], body["attentionDataParallel"], body["redundantExperts"]) == (4, 32, 32)
    assert (body["moeA2aBackend"], body["contextLength"], body["maxRunningRequests"]) == ("DeepEP", 65536, 1024)
    assert (body["memoryFraction"], body["chunkedPrefillSize"], body["multiTokenPrediction"]) == (0.8, 65536, True)


def test_flags_take_what_the_resource_takes() -> None:
    """The bounds of the flags are those of the schema, which is too slow to load for them."""
    schema = {**Topology.model_fields, **Limits.model_fields}
    bounds = {"nodes": "nodes_per_replica", "attention_dp": "attention_data_parallel"}
    for flag, name, least, most, _ in COUNTS:
        field = bounds.get(name, name)
        limits = {type(m).__name__: m for m in schema[field].metadata}
        assert (limits["Ge"].ge, limits["Le"].le) == (least, most), flag


def test_a_refusal_is_one_line_an_object_and_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--hardware", "H100x8", "--nodes", "1", "-o", "json"]) == 2
    shown = capsys.readouterr()
    refused = json.loads(shown.out)["refused"]
    assert set(refused) == {"field", "message", "remedy"}
    assert shown.err.count("\n") == 1
    assert "GiB" in shown.err


BAD = [
    ["--hardware", "H100x7"],
    ["--hardware", "H100x8", "--nodes", "0"],
    ["--hardware", "H100x8", "--nodes", "-2"],
    ["--hardware", "H100x8", "--tensor-parallel", "12"],
    ["--hardware", "H100x8", "--nodes", "2", "--attention-dp", "3"],
    ["--hardware", "H200x8", "--context-length", "200000"],
    ["--hardware", "H200x8", "--memory-fraction-percent", "99"],
    ["--hardware", "H200x8", "--chunked-prefill-size", "100"],
    ["--hardware", "H200x8", "--model", "deepseek-ai/DeepSeek-R9"],
    ["--hardware", "H200x8", "--objective", "Fast"],
    ["--hardware", "H200x8", "--objective", "SLO"],
    ["--hardware", "H200x8", "--model-config", "missing.json"],
    ["--hardware", "H100x8", "--nodes", "65"],
    ["--hardware", "H200x8", "--input-tokens", "200000"],
    ["--hardware", "H200x8", "--compare", "-o", "args"],
    ["--hardware", "H200x8", "--disaggregated", "-o", "manifest"],
    ["-f", "missing.yaml"],
    [],
]


@pytest.mark.parametrize("flags", BAD, ids=" ".join)
def test_bad_input_is_one_clear_line_and_nothing_half_printed(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *flags]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("r1 plan: ")
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not YAML: line"),
        ("kind: Pod", "exactly one"),
        (yaml.safe_dump(RESOURCE | {"spec": {}}), "required, but missing"),
    ],
)
def test_a_broken_resource_is_told_by_its_place(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r1.yaml"
    path.write_text(text)
    assert main(["plan", "-f", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_a_resource_is_planned_and_a_flag_wins_over_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r1.yaml"
    path.write_text(yaml.safe_dump(RESOURCE))
    assert main(["plan", "-f", str(path), "--nodes", "4", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["nodesPerReplica"] == 4


def test_profiles_of_the_chart_are_planned_for_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, profiles = tmp_path / "r1.yaml", tmp_path / "profiles.yaml"
    own = {"name": "H200-air", "gpusPerNode": 8, "memoryMib": 143771, "usableMemoryMib": 139000}
    own |= {"computeCapability": 90, "bf16Tflops": 800, "fp8Tflops": 1600, "memoryBandwidthGbytesPerSecond": 4800}
    own |= {"nvlinkGbytesPerSecond": 450, "networkGbitsPerSecond": 3200, "source": "measured here"}
    profiles.write_text(yaml.safe_dump([own]))
    path.write_text(yaml.safe_dump(RESOURCE | {"spec": RESOURCE["spec"] | {"hardware": "H200-air"}}))  # type: ignore[operator]
    for asked in (["-f", str(path)], ["--hardware", "H200-air"]):
        assert main(["plan", *asked, "--hardware-profiles", str(profiles), "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["hardware"] == "H200-air"
    profiles.write_text(yaml.safe_dump([own | {"gpusPerNode": 0}]))
    assert main(["plan", "--hardware", "H200-air", "--hardware-profiles", str(profiles)]) == 2
    assert "[0].gpusPerNode" in capsys.readouterr().err


def test_a_promise_in_the_resource_is_planned_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r1.yaml"
    promise = {"objective": "SLO", "slo": {"tpotMilliseconds": 40}}
    path.write_text(yaml.safe_dump(RESOURCE | {"spec": RESOURCE["spec"] | promise}))  # type: ignore[operator]
    assert main(["plan", "-f", str(path), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["expected"]["tpotMilliseconds"] <= 40


@pytest.mark.parametrize(
    "flags",
    [
        "--objective Throughput",
        "--objective Latency",
        "--tpot-ms 50",
        "--memory-fraction-percent 80 --kv-cache-dtype fp8_e4m3 --attention-dp 8",
    ],
)
def test_the_manifest_is_a_resource_that_gives_the_same_plan(
    flags: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["plan", "--hardware", "H200x8", *flags.split()]
    assert main([*asked, "-o", "manifest"]) == 0
    manifest = capsys.readouterr().out
    assert isinstance(parse(yaml.safe_load(manifest)), R1Deployment)
    path = tmp_path / "made.yaml"
    path.write_text(manifest)
    assert main(["plan", "-f", str(path), "-o", "args"]) == 0
    from_manifest = capsys.readouterr().out
    assert main([*asked, "-o", "args"]) == 0
    assert capsys.readouterr().out == from_manifest


def test_a_reader_that_stops_early_is_no_error() -> None:
    command = f"{sys.executable} -m r1_operator.cli.main plan --hardware H100x8 --explain | head -1"
    run = subprocess.run(
        ["bash", "-c", command + "; exit ${PIPESTATUS[0]}"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_a_config_json_of_an_unknown_name_is_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = (ROOT / "operator/r1_operator/planning/models/deepseek-r1.json").read_text()
    (tmp_path / "config.json").write_text(config)
    assert main(["plan", "--hardware", "H200x8", "--model-config", str(tmp_path / "config.json"), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["nodesPerReplica"] == 1
    (tmp_path / "config.json").write_text('{"architectures": ["GptOssForCausalLM"]}')
    assert main(["plan", "--hardware", "H200x8", "--model-config", str(tmp_path / "config.json")]) == 2
    assert "GptOssForCausalLM" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--explain"], ["--compare"], ["--disaggregated"], ["--disaggregated", "-o", "json"]])
def test_the_other_views_are_shown(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--hardware", "H100x8", *more]) == 0
    assert "tok" in capsys.readouterr().out.lower()


def test_planning_from_flags_imports_nothing_heavy() -> None:
    """The start of the command is its imports: nothing heavy comes in by accident."""
    code = (
        "import sys; from r1_operator.cli.main import main; main(['plan', '--hardware', 'H100x8']); "
        "heavy = {'kubernetes', 'yaml', 'rich', 'aiohttp', 'pydantic'} & set(sys.modules); "
        "sys.exit(bool(heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
