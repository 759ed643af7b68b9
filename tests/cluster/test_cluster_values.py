"""What the local cluster decides without starting anything."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster import build, network, preflight, relay
from tests.cluster.config import CHECKOUT, FAMILIES, MAX_NODES, ClusterConfig, ConfigError, cache_root
from tests.waiting import PATIENCE_SECONDS


@given(st.sampled_from(FAMILIES), st.integers(1, MAX_NODES), st.integers(1, MAX_NODES))
def test_nodes_have_names_and_addresses_of_their_own(family: int, one: int, other: int) -> None:
    addresses = network.ADDRESSES[family]
    assert network.node_index(network.node_name(one)) == one
    assert (addresses.pods_of(one) == addresses.pods_of(other)) == (one == other)
    whole, range_ = ipaddress.ip_network(addresses.pod_network), ipaddress.ip_network(addresses.pods_of(one))
    assert range_.subnet_of(whole)  # type: ignore[arg-type]
    assert ipaddress.ip_address(addresses.control_plane) in whole
    assert ipaddress.ip_address(addresses.control_plane) not in range_
    assert ipaddress.ip_address(addresses.node(one)) in range_
    assert not ipaddress.ip_network(addresses.service_network).overlaps(whole)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"name": "Bad_Name"}, "name"),
        ({"nodes": -1}, "nodes"),
        ({"nodes": MAX_NODES + 1}, "nodes"),
        ({"family": 5}, "family"),
        ({"gpus_per_node": -1}, "gpus-per-node"),
        ({"feature_gates": ("GenericWorkload",)}, "feature-gates"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ClusterConfig(**settings)  # type: ignore[arg-type]


def test_config_survives_its_file() -> None:
    config = ClusterConfig(name="a", feature_gates=("GenericWorkload=true",), node_labels={"a": "b"})
    assert ClusterConfig.from_json(config.to_json()) == config


def test_missing_programs_name_their_packages() -> None:
    assert preflight.missing_packages(
        lambda program: None if program in {"nft", "unshare", "nsenter"} else program
    ) == (
        "nftables",
        "util-linux",
    )


def test_a_refused_namespace_comes_with_a_remedy() -> None:
    assert "--privileged" in preflight.refusal(is_root=True, reason="unshare failed")
    assert "sysctl" in preflight.refusal(is_root=False, reason="unshare failed")


def test_the_server_is_told_its_version() -> None:
    version = build.kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".")
    flags = build.link_flags(version)
    assert f"gitVersion={version}" in flags
    assert f"gitMajor={major}" in flags
    assert f"gitMinor={minor}" in flags


def test_another_program_is_another_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a cached folder would lack the new program's link."""
    before = build.binaries_folder()
    monkeypatch.setattr(build, "PROGRAMS", (*build.PROGRAMS, "new"))
    assert build.binaries_folder() != before


def test_the_filter_answers_for_changes_of_owner_and_for_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.touch()
    script = (
        "import os, sys; os.chown(sys.argv[1], 65532, 65532); os.lchown(sys.argv[1], 1, 1); os.chmod(sys.argv[1], 0)"
    )
    command = [sys.executable, "-c", script, str(target)]
    if subprocess.run(["unshare", "--user", "--map-root-user", "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no user namespaces")
    inside = ["unshare", "--user", "--map-root-user"]
    refused = subprocess.run([*inside, *command], capture_output=True, text=True)
    assert "Invalid argument" in refused.stderr
    subprocess.run([*inside, sys.executable, "-m", "tests.cluster.one_id", *command], check=True, cwd=CHECKOUT)
    assert (target.stat().st_uid, target.stat().st_mode & 0o777) == (os.geteuid(), 0)


def test_a_build_that_fails_leaves_nothing_that_looks_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\ncase $1 in env) echo go99.0;; *) echo no such module; exit 1;; esac\n")
    go.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(build.BuildError, match="no such module"):
        build.ensure_binaries()
    assert [path.name for path in cache_root().iterdir()] == ["build.lock"]


async def test_relay_passes_bytes_and_half_closes() -> None:
    """A client that ends its writing still reads the answer, and one with nowhere to go is refused."""

    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    inner = await asyncio.start_server(upper, "127.0.0.1", 0)
    target = inner.sockets[0].getsockname()[:2]

    async def there() -> tuple[str, int]:
        return str(target[0]), int(target[1])

    async def nowhere() -> tuple[str, int]:
        raise LookupError("no such service")

    outer, refusing = [await relay.serve(_listener(), dial) for dial in (there, nowhere)]
    reader, writer = await asyncio.open_connection(*outer.sockets[0].getsockname())
    writer.write(b"a" * 200_000)
    writer.write_eof()
    assert await reader.read() == b"A" * 200_000
    writer.close()
    reader, writer = await asyncio.open_connection(*refusing.sockets[0].getsockname())
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()
    for server in (outer, refusing, inner):
        server.close()


def test_first_process_ends_with_its_lifeline() -> None:
    script = (
        "import os, sys, time\n"
        "from tests.cluster.init import run_as_first_process\n"
        "sys.exit(run_as_first_process(lambda: time.sleep(600) or 0, int(sys.argv[1])))\n"
    )
    reading, writing = os.pipe()
    with subprocess.Popen([sys.executable, "-c", script, str(reading)], cwd=CHECKOUT, pass_fds=[reading]) as process:
        os.close(reading)
        child = _only_child(process.pid)
        os.close(writing)
        try:
            assert process.wait(timeout=PATIENCE_SECONDS) == 128 + signal.SIGTERM
        finally:
            os.kill(child, signal.SIGKILL)  # outside a process namespace nobody else ends it


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (listed := children.read_text().split()):
        assert time.monotonic() < deadline, "the first process has started no child"
        time.sleep(0.02)
    return int(listed[0])


def _listener() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener
