"""Weights over the network are read ahead, others are not, and who has said how they are loaded is obeyed."""

from __future__ import annotations

from pathlib import Path

import pytest
from r1_engine import launch
from r1_engine.volume import PREFETCH, arguments, filesystem, is_network

from tests.unit.test_engine_launch import settings


def mounted(tmp_path: Path, kind: str, size: int = 1000) -> tuple[Path, Path]:
    """A model on a file system of this kind, and the mounts that say so."""
    model = tmp_path / "models" / "r1"
    model.mkdir(parents=True)
    (model / "model-1.safetensors").write_bytes(b"x" * size)
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"overlay / overlay rw 0 0\nserver:/x {tmp_path}/models {kind} ro 0 0\ntmpfs /tmpx tmpfs rw 0 0\n"
    )
    return model, mounts


@pytest.mark.parametrize(
    ("kind", "ahead"),
    [("nfs4", True), ("ceph", True), ("lustre", True), ("fuse.juicefs", True), ("ext4", False), ("xfs", False),
     ("fuseblk", False), ("overlay", False)],
)  # fmt: skip
def test_weights_over_the_network_are_read_ahead(tmp_path: Path, kind: str, ahead: bool) -> None:
    model, mounts = mounted(tmp_path, kind)
    assert is_network(kind) is ahead
    assert arguments(model, [], print, mounts, tmp_path / "none") == ([PREFETCH] if ahead else [])


@pytest.mark.parametrize("limit", ["max", "1000", "999"])
def test_not_where_the_page_cache_cannot_hold_them(tmp_path: Path, limit: str) -> None:
    model, mounts = mounted(tmp_path, "nfs")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    assert bool(arguments(model, [], print, mounts, tmp_path / "memory.max")) is (limit != "999")


@pytest.mark.parametrize(
    "said",
    [["--load-format", "dummy"], ["--weight-loader-disable-mmap"], [PREFETCH], ["--model-loader-extra-config={}"]],
)
def test_who_says_how_weights_are_loaded_is_obeyed(tmp_path: Path, said: list[str]) -> None:
    model, mounts = mounted(tmp_path, "nfs")
    assert arguments(model, said, print, mounts, tmp_path / "none") == []


def test_the_nearest_mount_counts_and_what_cannot_be_read_is_a_local_disk(tmp_path: Path) -> None:
    disk = "/models/local\\040disk"
    mounts = f"a / ext4 rw 0 0\nb /models nfs ro 0 0\nc {disk} xfs ro 0 0\nd {disk} nfs4 ro 0 0"
    assert filesystem(Path("/models"), mounts) == "nfs"
    assert filesystem(Path("/models-2/r1"), mounts) == "ext4"
    assert filesystem(Path("/models/local disk/r1"), mounts) == "nfs4", "the later one lies above"
    assert arguments(tmp_path / "nowhere", [], print, tmp_path / "no mounts") == []


def test_the_server_is_told() -> None:
    assert PREFETCH not in launch.command(settings(), "10.0.0.1")
    argv = launch.command(settings(engineArgs=["--tp-size", "2"]), "10.0.0.1", [PREFETCH])
    assert argv.index(PREFETCH) < argv.index("--tp-size")
