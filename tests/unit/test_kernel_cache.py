"""`spec.engine.cache`: where it is mounted, by what it is keyed, and that one which cannot be written ends nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from r1_engine import kernels, launch
from r1_engine.config import load_settings
from r1_operator.api.parse import parse
from r1_operator.api.types import R1Deployment
from r1_operator.planning import built_in_profiles
from r1_operator.rounds.host_paths import refused_host_path
from r1_simulate.cluster import SimulatedCluster, spec_of

from tests.unit.test_engine_config import environ, write

__all__ = ["environ"]
HOST = {"hostPath": {"path": "/var/cache/r1"}}
CLAIM = {"persistentVolumeClaim": {"claimName": "kernels"}}


def engine(**more: Any) -> dict[str, Any]:
    return {**spec_of()["engine"], **more}


def rendered(
    image: str = "registry.example:5000/team/sglang:v0.5.23", **more: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pod and engine.json of the revision that is asked for."""
    cluster = SimulatedCluster(spec_of() | {"engine": engine(image=image, **more)})
    cluster.settle(2)
    (template,) = cluster.templates.values()
    return dict(template.pod), dict(template.config)


@pytest.mark.parametrize(
    ("cache", "volume"),
    [
        (HOST, {"hostPath": {"path": "/var/cache/r1", "type": "DirectoryOrCreate"}}),
        (CLAIM, {"persistentVolumeClaim": {"claimName": "kernels"}}),
    ],
)
def test_the_cache_is_mounted_for_writing_and_the_engine_is_told_its_folder(
    cache: dict[str, Any], volume: dict[str, Any]
) -> None:
    pod, config = rendered(cache=cache)
    assert {"name": "kernels", **volume} in pod["spec"]["volumes"]
    mounts = pod["spec"]["containers"][0]["volumeMounts"]
    assert {"name": "kernels", "mountPath": "/var/cache/r1"} in mounts
    assert config["kernelCache"].startswith("/var/cache/r1/CPUx1/sglang-v0.5.23-")
    # Another image compiles for itself; the same one finds what is there.
    assert rendered(cache=cache)[1]["kernelCache"] == config["kernelCache"]
    assert rendered("another/sglang:v0.5.23", cache=cache)[1]["kernelCache"] != config["kernelCache"]


def test_without_a_cache_pods_and_their_revisions_are_what_they_were() -> None:
    pod, config = rendered()
    assert "kernelCache" not in config
    assert all(volume["name"] != "kernels" for volume in pod["spec"]["volumes"])


def resource(**spec: Any) -> R1Deployment | list[Any]:
    kind = {"apiVersion": "r1operator.dev/v1alpha1", "kind": "R1Deployment", "metadata": {"name": "r1"}}
    return parse({**kind, "spec": spec_of() | spec})


def test_a_profile_may_say_where_and_a_resource_says_otherwise() -> None:
    """Of two places one is meant: that of the resource, and not both."""
    profile = {"name": "site", "extends": "CPUx1", "cache": HOST}
    for own, expected in (({}, HOST), ({"cache": CLAIM}, CLAIM)):
        found = resource(hardware="site", hardwareProfile=profile, engine=engine(**own))
        assert isinstance(found, R1Deployment)
        cluster = SimulatedCluster(
            spec_of() | {"hardware": "site", "hardwareProfile": profile, "engine": engine(**own)}
        )
        cluster.settle(2)
        (template,) = cluster.templates.values()
        volumes = [v for v in template.pod["spec"]["volumes"] if v["name"] == "kernels"]
        assert [set(v) - {"name"} for v in volumes] == [set(expected)]
        assert template.config["kernelCache"].startswith("/var/cache/r1/site/")


def test_what_cannot_be_is_refused_with_the_field() -> None:
    (problem,) = resource(engine=engine(cache={**HOST, **CLAIM}))  # type: ignore[misc]
    assert str(problem) == (
        "spec.engine.cache: exactly one place for the cache is needed; set either hostPath or persistentVolumeClaim"
    )
    found = resource(engine=engine(cache={"hostPath": {"path": "/root/.cache"}}))
    assert isinstance(found, R1Deployment)
    refusal = refused_host_path(found.spec, ["/models", "/var/cache/r1"])
    assert refusal is not None
    assert refusal.field == "spec.engine.cache.hostPath.path"
    (taken,) = resource(  # type: ignore[misc]
        engine=engine(
            podTemplate={"spec": {"volumes": [{"name": "kernels", "emptyDir": {}}]}},
        )
    )
    assert "kernels" in str(taken)


# --- in the engine ----------------------------------------------------------------------------------------------------
def environment(
    environ: dict[str, str], cache: Path | None, log: Callable[[str], None] = print, **said: str
) -> dict[str, str]:
    write(environ, **({"kernelCache": str(cache)} if cache else {}), env=said)
    settings = load_settings(environ)
    found = kernels.variables(settings.config.kernel_cache, {**environ, **settings.config.env}, log)
    return launch.environment({**environ, **found}, settings, [0], None)


def test_sglang_is_told_of_a_folder_that_is_there_by_then(environ: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "H100x8" / "image"
    told = environment(environ, folder)
    assert told["SGLANG_CACHE_DIR"] == str(folder)
    assert folder.is_dir()
    assert list(folder.iterdir()) == [], "the trial left nothing"
    assert told["SGLANG_JIT_DEEPGEMM_FAST_WARMUP"] == "1"
    # What the user says wins.
    said = environment(environ, folder, SGLANG_CACHE_DIR="/own", SGLANG_JIT_DEEPGEMM_FAST_WARMUP="0")
    assert (said["SGLANG_CACHE_DIR"], said["SGLANG_JIT_DEEPGEMM_FAST_WARMUP"]) == ("/own", "0")
    assert "SGLANG_CACHE_DIR" not in environment(environ, None)


def test_a_cache_that_cannot_be_written_to_costs_time_and_no_start(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    logged: list[str] = []
    assert "SGLANG_CACHE_DIR" not in environment(environ, tmp_path / "file" / "below", logged.append)
    assert len(logged) == 1
    assert "spec.engine.cache" in logged[0]
    assert "Not a directory" in logged[0]


def test_sglang_keeps_what_it_compiles_below_that_variable() -> None:
    """By the source of the version that is served (its package is no part of this environment)."""
    (source,) = Path(__file__).parents[2].glob(".venv-engine/lib/python3*/site-packages/sglang/srt/environ.py")
    text = source.read_text()
    assert "SGLANG_CACHE_DIR = EnvStr" in text
    assert "SGLANG_JIT_DEEPGEMM_FAST_WARMUP = EnvBool" in text
    assert 'SGLANG_DG_CACHE_DIR = EnvStr(lambda: _default_cache_subdir("deep_gemm"))' in text


def test_the_built_in_profiles_leave_the_nodes_disks_alone() -> None:
    """A hostPath is the site's to allow: Pod Security's baseline refuses pods with one."""
    for profile in built_in_profiles().values():
        given = getattr(profile, "given", None)
        assert given is None or given.cache is None
