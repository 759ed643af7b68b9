"""Whether reading the weights ahead, each file by one rank of a node, is worth it: on a volume over the network.

Eight ranks that map the same files read each of them up to eight times over the network, unless the node's page cache
has it already; SGLang then lets each rank read its share ahead (`--weight-loader-prefetch-checkpoints`). On a local
disk that only stands in the way of its own parallel reading.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

PREFETCH = "--weight-loader-prefetch-checkpoints"
_CHOSEN = ("--weight-loader-", "--load-format", "--model-loader-extra-config")
"""Who says how weights are loaded has thought of it."""
_NETWORK = frozenset(
    {"nfs", "nfs4", "ceph", "cifs", "smb3", "lustre", "gpfs", "beegfs", "glusterfs", "wekafs", "9p", "virtiofs"}
)
_MOUNTS, _LIMIT = Path("/proc/self/mounts"), Path("/sys/fs/cgroup/memory.max")


def arguments(
    model: Path,
    said: Sequence[str],
    log: Callable[[str], None] = lambda _: None,
    mounts: Path = _MOUNTS,
    limit: Path = _LIMIT,
) -> list[str]:
    """What the server is told beside what the user `said`; nothing where the page cache could not hold the weights."""
    if any(word.startswith(_CHOSEN) for word in said):
        return []
    try:
        kind = filesystem(model, mounts.read_text())
        if not is_network(kind):
            return []
        size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
        most = limit.read_text().strip() if limit.exists() else "max"
    except OSError as error:
        log(f"Not known how the weights are mounted ({error}): they are read as from a local disk.")
        return []
    if most != "max" and int(most) < size:
        log(f"{size} bytes of weights over {kind}, and a memory limit of {most}: they are not read ahead.")
        return []
    log(f"The weights come over the network ({kind}): each rank reads its share of the files ahead.")
    return [PREFETCH]


def is_network(kind: str) -> bool:
    """Whether files of such a file system come over a network; in user space (`fuse.juicefs`, …) they do as a rule."""
    return kind in _NETWORK or kind.startswith("fuse.")


def filesystem(path: Path, mounts: str) -> str:
    """The type of the file system that holds a path, by the lines of /proc/self/mounts; empty: none is known."""
    best, found = -1, ""
    real = os.path.realpath(path)
    for line in mounts.splitlines():
        _, point, kind, *_ = [*line.split(" "), "", "", ""]
        point = point.encode().decode("unicode_escape")  # spaces stand there as \\040
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= best:
            best, found = len(point), kind  # of two at one place the later one is seen
    return found
