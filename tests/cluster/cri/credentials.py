"""Who a container's processes are: user, groups and capabilities, as arguments of setpriv and bubblewrap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# What container runtimes give a container that asks for nothing else (the set Docker and containerd share).
DEFAULT_CAPABILITIES = frozenset(
    [
        "chown",
        "dac_override",
        "fsetid",
        "fowner",
        "mknod",
        "net_raw",
        "setgid",
        "setuid",
        "setfcap",
        "setpcap",
        "net_bind_service",
        "sys_chroot",
        "kill",
        "audit_write",
    ]
)


@dataclass(frozen=True)
class IdMaps:
    """The ids this process may become, as (first, count) ranges, and whether it may set groups."""

    uids: tuple[tuple[int, int], ...]
    gids: tuple[tuple[int, int], ...]
    may_set_groups: bool

    def has(self, uid: int, gid: int) -> bool:
        """True if both ids are mapped, so that a real change of user is possible."""
        return _within(uid, self.uids) and _within(gid, self.gids)


def _within(number: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= number < first + count for first, count in ranges)


def read_id_maps(process: Path = Path("/proc/self")) -> IdMaps:
    """The id maps of the user namespace this process is in (the whole range outside any)."""
    setgroups = process / "setgroups"
    return IdMaps(
        uids=_parse_map((process / "uid_map").read_text()),
        gids=_parse_map((process / "gid_map").read_text()),
        may_set_groups=not setgroups.exists() or setgroups.read_text().strip() == "allow",
    )


def _parse_map(text: str) -> tuple[tuple[int, int], ...]:
    rows = [line.split() for line in text.splitlines() if line.strip()]
    return tuple((int(first), int(count)) for first, _, count in rows)


@dataclass(frozen=True)
class Credentials:
    """The identity of one container."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: frozenset[str] = DEFAULT_CAPABILITIES
    privileged: bool = False


def capabilities_after(add: Iterable[str], drop: Iterable[str]) -> frozenset[str]:
    """The default set with a pod's `capabilities.drop` and then `.add` applied; names with or without `CAP_`, or ALL.

    ALL in `add` means the default set: more is not given away by a test cluster.
    """
    added, dropped = ({name.lower().removeprefix("cap_") for name in names} for names in (add, drop))
    kept = frozenset() if "all" in dropped else DEFAULT_CAPABILITIES - dropped
    return kept | (DEFAULT_CAPABILITIES if "all" in added else frozenset()) | (added - {"all"})


def needs_user_namespace(credentials: Credentials, maps: IdMaps) -> bool:
    """True if the wanted user exists only as a name inside a user namespace of the container's own.

    In a namespace that maps a single id, a container's "65532" is our own user seen under that number: file modes
    between users then mean nothing, but the process has no capabilities and sees itself as not root.
    """
    return not maps.has(credentials.uid, credentials.gid)


def setpriv_arguments(credentials: Credentials, maps: IdMaps) -> list[str]:
    """The setpriv call that turns the runtime's identity into the container's, to be followed by its command."""
    # The parent-death signal is lost by a change of user, so it is set (again) by setpriv, which does so last.
    arguments = ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--no-new-privs"]
    if needs_user_namespace(credentials, maps):
        return [*arguments, "--inh-caps=-all", "--"]
    if credentials.uid or credentials.gid:
        arguments += ["--reuid", str(credentials.uid), "--regid", str(credentials.gid)]
        if not maps.may_set_groups:
            arguments.append("--keep-groups")
    if maps.may_set_groups:
        arguments += ["--groups", ",".join(map(str, credentials.groups))] if credentials.groups else ["--clear-groups"]
    if not credentials.privileged:
        allowed = ",".join(["-all", *(f"+{name}" for name in sorted(credentials.capabilities))])
        arguments += ["--inh-caps=-all", f"--bounding-set={allowed}"]
    return [*arguments, "--"]


def passwd_file(uid: int, gid: int) -> str:
    """A passwd file with root, nobody and the container's user, whose home is / as for one the image does not know."""
    lines = ["root:x:0:0:root:/root:/bin/sh", "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin"]
    if uid not in (0, 65534):
        lines.append(f"user:x:{uid}:{gid}:user:/:/bin/sh")
    return "\n".join(lines) + "\n"


def group_file(gid: int, groups: Iterable[int]) -> str:
    """A group file with root, nogroup and the container's groups."""
    extra = sorted({gid, *groups} - {0, 65534})
    return "\n".join(["root:x:0:", "nogroup:x:65534:", *(f"group{number}:x:{number}:" for number in extra)]) + "\n"
