"""The command lines and environments the engine starts its parts with."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from r1_engine import import_hooks, launch, loading, ray_group, ray_start
from r1_engine.config import EngineConfig, Limits, Pod, Settings
from r1_engine.cpu import models


def settings(index: int = 0, ip: str = "10.0.0.7", **changes: Any) -> Settings:
    config = {
        "deployment": "r1",
        "replica": 0,
        "attempt": 0,
        "nodes": 2,
        "gpusPerNode": 1,
        "headAddress": "head",
        "servedName": "deepseek-r1",
        "modelPath": "/models",
        **changes,
    }
    pod = Pod(name="r1-0-0-0", ip=ip, node_name="gpu-7", index=index)
    return Settings(config=EngineConfig.model_validate(config), pod=pod, token="secret")


def value(argv: list[str], flag: str) -> str:
    assert argv.count(flag) == 1
    return argv[argv.index(flag) + 1]


def test_the_server_is_told_its_place_in_the_gang() -> None:
    argv = launch.command(settings(1, engineArgs=["--tp-size", "2"]), "10.0.0.1")
    assert value(argv, "--nnodes") == "2"
    assert value(argv, "--node-rank") == "1"
    assert value(argv, "--dist-init-addr") == "10.0.0.1:25000"
    assert value(argv, "--tp-size") == "2"
    assert float(value(argv, "--watchdog-timeout")) > Limits().longest_silence, "ours is the better watchdog"
    assert "--device" not in argv


def test_loopback_and_ipv6_addresses_work() -> None:
    assert value(launch.command(settings(ip="127.0.1.2"), "127.0.1.1"), "--host") == "127.0.1.2"
    argv = launch.command(settings(ip="fd00::7"), "fd00::1")
    assert (value(argv, "--host"), value(argv, "--dist-init-addr")) == ("::", "[fd00::1]:25000")


PROXY = {"HTTP_PROXY": "http://proxy:3128", "https_proxy": "http://proxy:3128"}


def test_no_proxy_of_the_cluster_stands_between_parts_of_a_gang() -> None:
    def direct(base: dict[str, str], **env: str) -> dict[str, str]:
        told = settings(ip="fd00::7", headAddress="r1-0-1-0.r1.web.svc", env=env)
        ray = ray_group.environment({**PROXY, **base}, told)
        server = launch.environment(ray, told, (0, 1), "eth0")
        assert server["HTTP_PROXY"] == "http://proxy:3128", "the user's, for the world outside"
        assert server["NO_PROXY"] == server["no_proxy"]
        assert ray["NO_PROXY"] == ray["no_proxy"]
        return server

    ours = {"localhost", "127.0.0.1", "::1", ".svc", "fd00::7", "r1-0-1-0.r1.web.svc"}
    assert set(direct({})["NO_PROXY"].split(",")) == ours
    assert set(direct({"NO_PROXY": "a, b", "no_proxy": "b,c"})["NO_PROXY"].split(",")) == {"a", "b", "c", *ours}
    assert set(direct({"NO_PROXY": "a"}, no_proxy="d")["NO_PROXY"].split(",")) >= {"a", "d", *ours}
    assert direct({"no_proxy": "*"})["NO_PROXY"] == "*"


def test_requests_obeys_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client that SGLang asks itself with."""
    get_environ_proxies = importlib.import_module("requests.utils").get_environ_proxies
    for name, value in launch.environment(PROXY, settings(ip="fd00::7"), (), "eth0").items():
        monkeypatch.setenv(name, value)
    for host in ("127.0.0.1", "[::1]", "[fd00::7]", "head", "x.ns.svc"):
        assert get_environ_proxies(f"http://{host}:30000/model_info", no_proxy=None) == {}
    assert get_environ_proxies("http://example.com", no_proxy=None)


def test_cpu_mode_adds_its_flags_and_the_users_win() -> None:
    argv = launch.command(settings(device="cpu", engineArgs=["--max-total-tokens", "4096"]), "10.0.0.1")
    assert value(argv, "--device") == "cpu"
    assert value(argv, "--max-total-tokens") == "4096"


def test_the_users_environment_wins_over_choices_not_over_what_we_rely_on() -> None:
    ray = {"RAY_ADDRESS": "x", "OMP_NUM_THREADS": "1", "NCCL_SOCKET_IFNAME": "ib0", "PROMETHEUS_MULTIPROC_DIR": "/x"}
    given = launch.environment(ray, settings(env={"SGLANG_X": "1"}), (0, 1), "eth0")
    assert given["NCCL_SOCKET_IFNAME"] == "ib0"
    assert given["GLOO_SOCKET_IFNAME"] == "eth0"
    assert given["SGLANG_X"] == "1"
    assert given["PROMETHEUS_MULTIPROC_DIR"] == "/tmp/r1/prometheus"
    assert not {"RAY_ADDRESS", "OMP_NUM_THREADS"} & set(given)  # Ray sets the second to the actor's CPUs
    assert "SGLANG_USE_CPU_ENGINE" not in given
    own = launch.environment(ray_group.environment({"OMP_NUM_THREADS": "4"}, settings()) | ray, settings(), (0,), None)
    assert own["OMP_NUM_THREADS"] == "4"


def test_ranks_wait_for_the_slowest_load_as_long_as_any_start_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = launch.environment({}, settings(), (0, 1), None)
    monkeypatch.setenv(loading.LOADING_VARIABLE, given[loading.LOADING_VARIABLE])
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "loads_models.py").write_text(f"{loading.LOADING_LIMIT} = 480")
    import_hooks.after_import("loads_models", loading.wait_for_the_slowest)
    assert getattr(importlib.import_module("loads_models"), loading.LOADING_LIMIT) == 86_400


def test_cpu_ranks_of_two_nodes_begin_at_different_cores() -> None:
    binds = [
        launch.environment({}, settings(index, device="cpu"), (4, 5), None)["SGLANG_CPU_OMP_THREADS_BIND"]
        for index in (0, 1)
    ]
    assert binds == ["4|5", "5|4"]


def test_ray_is_started_with_token_small_store_and_no_dashboard() -> None:
    argv = ray_group.command(settings(device="cpu"))
    assert value(argv, "--num-gpus") == "0"
    assert value(argv, "--include-dashboard") == "false"
    assert int(value(argv, "--object-store-memory")) < 100_000_000
    environment = ray_group.environment({}, settings())
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN"] == "secret"
    assert "secret" not in " ".join(argv)
    member = ray_group.command(settings(1))
    assert "--head" not in member
    assert value(member, "--num-gpus") == "1"
    assert ray_group.address(settings(1), "fd00::7") == "[fd00::7]:6379"


def test_ray_start_waits_for_a_raylet_that_registers_late() -> None:
    answers: list[Any] = [RuntimeError("not yet"), RuntimeError("not yet"), {"node": 1}]

    def get_node(gcs: str, node: str) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert ray_start.patient(get_node, 60, pause=lambda _: None)("gcs", "node") == {"node": 1}
    answers[:] = [RuntimeError("never")] * 2
    with pytest.raises(RuntimeError, match="never"):
        ray_start.patient(get_node, -1, pause=lambda _: None)("gcs", "node")


def test_only_modules_that_name_the_architecture_are_needed(tmp_path: Path) -> None:
    (tmp_path / "deepseek_v2.py").write_text("class DeepseekV3ForCausalLM: ...")
    (tmp_path / "qwen.py").write_text("class QwenForCausalLM: ...")
    assert models.needless_modules(tmp_path, ["DeepseekV3ForCausalLM"]) == ["qwen"]
    # A model SGLang does not know is SGLang's to refuse: it must see all it has.
    assert models.needless_modules(tmp_path, ["UnknownForCausalLM"]) == []
