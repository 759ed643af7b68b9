"""The file-system view of a container, as arguments of bubblewrap. Pure but for `read_host_layout`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

# As other runtimes: what an application needs more of must be asked for with a memory-backed volume at /dev/shm.
SHARED_MEMORY_BYTES = 64 << 20

# What of the host's /etc a program under /usr needs. Names and accounts are the container's own.
_ETC = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "pki",
    "protocols",
    "services",
    "ssl",
)


@dataclass(frozen=True)
class HostLayout:
    """What a container sees of the host: `links` as they are (/bin → usr/bin), `trees` bound read-only."""

    links: tuple[tuple[str, str], ...]
    trees: tuple[str, ...]


def read_host_layout(root: Path = Path("/")) -> HostLayout:
    """Look once at how this host is laid out (merged /usr or not, which files /etc has)."""
    links: list[tuple[str, str]] = []
    trees = ["/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = root / name
        if path.is_symlink():
            links.append((str(path.readlink()), f"/{name}"))
        elif path.is_dir():
            trees.append(f"/{name}")
    trees += [f"/etc/{name}" for name in _ETC if (root / "etc" / name).exists()]
    return HostLayout(tuple(links), (*trees, "/sys"))


@dataclass(frozen=True)
class Bind:
    """A host path at a container path."""

    source: str
    target: str
    read_only: bool = True
    device: bool = False


@dataclass(frozen=True)
class View:
    """All that a container sees. `user` is (uid, gid) when it needs a user namespace of its own, else None."""

    binds: tuple[Bind, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    read_only_root: bool = False
    user: tuple[int, int] | None = None


def bwrap_arguments(view: View, layout: HostLayout) -> list[str]:
    """Arguments of bwrap (without the program itself and the command).

    The container is process 1 of its own process namespace, as under other runtimes: a signal it does not handle does
    nothing to it, and its end ends everything in it. Network, IPC and host name are the pod's, entered before.
    """
    arguments = ["--unshare-pid", "--as-pid-1", "--die-with-parent"]
    if view.user is not None:
        uid, gid = view.user
        arguments += ["--unshare-user", "--uid", str(uid), "--gid", str(gid), "--cap-drop", "ALL"]
    targets = {_normal(bind.target) for bind in view.binds}
    for folder in ("/etc", "/var"):  # the first path below would make them, for root's eyes only
        arguments += ["--dir", folder]
    for tree in layout.trees:
        if tree not in targets:
            arguments += ["--ro-bind", tree, tree]
    for source, target in layout.links:
        arguments += ["--symlink", source, target]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    if "/dev/shm" not in targets:
        arguments += ["--perms", "1777", "--size", str(SHARED_MEMORY_BYTES), "--tmpfs", "/dev/shm"]
    arguments += ["--dir", "/root", "--dir", "/run", "--symlink", "../run", "/var/run"]
    for shared in ("/tmp", "/var/tmp"):
        if shared not in targets:
            arguments += ["--perms", "1777", "--dir", shared]
    made = {"/", "/etc", "/var"}
    for bind in sorted(view.binds, key=lambda bind: len(PurePosixPath(bind.target).parts)):
        place = PurePosixPath(_normal(bind.target))
        for parent in reversed(place.parents):  # left to bubblewrap, they would be for root's eyes only
            if str(parent) not in made:
                arguments += ["--dir", str(parent)]
                made.add(str(parent))
        kind = "--dev-bind" if bind.device else "--ro-bind" if bind.read_only else "--bind"
        arguments += [kind, bind.source, str(place)]
        made.add(str(place))
    if not any(_below(view.workdir, target) for target in targets):
        arguments += ["--dir", view.workdir]
    if view.read_only_root:
        arguments += ["--remount-ro", "/"]
    arguments += ["--chdir", view.workdir, "--clearenv"]
    for name, value in view.environment.items():
        arguments += ["--setenv", name, value]
    return arguments


def _normal(path: str) -> str:
    """An absolute path without doubled or trailing slashes; /var/run is a link to /run, as on every Linux."""
    plain = "/" + "/".join(part for part in path.split("/") if part)
    return "/run" + plain.removeprefix("/var/run") if plain == "/var/run" or plain.startswith("/var/run/") else plain


def _below(path: str, target: str) -> bool:
    return PurePosixPath(path).is_relative_to(target)
