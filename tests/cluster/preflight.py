"""Checks that this machine can hold a local cluster, before anything is built or started."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from typing import Final

PACKAGE_OF_PROGRAM: Final[Mapping[str, str]] = {
    "bwrap": "bubblewrap",
    "curl": "curl",
    "gcc": "gcc libc6-dev",
    "ip": "iproute2",
    "mount": "mount",
    "nft": "nftables",
    "nsenter": "util-linux",
    "ps": "procps",
    "unshare": "util-linux",
}
"""Programs the cluster runs, or tests run (curl, ps, gcc), and the Debian packages that bring each."""

SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Debian leaves the sbin folders out of an ordinary user's PATH, and `ip` and `nft` lie there."""

_TRIAL: Final = (
    "mount -t tmpfs none /run && ip link add probe0 type bridge && ip link set probe0 up && nft list ruleset"
)


class PreflightError(RuntimeError):
    """The machine cannot hold a cluster as it is: the message says why and what to type."""


def with_system_path(environment: Mapping[str, str]) -> dict[str, str]:
    return {**environment, "PATH": f"{environment.get('PATH', '')}:{SYSTEM_PATH}"}


def namespace_flags(user_namespace: bool) -> tuple[str, ...]:
    """Flags of unshare(1) for a cluster. Root needs no user namespace, and has all users without one."""
    flags = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    return ("--user", "--map-root-user", *flags) if user_namespace else flags


def missing_packages(find: Callable[[str], str | None]) -> tuple[str, ...]:
    return tuple(sorted({package for program, package in PACKAGE_OF_PROGRAM.items() if find(program) is None}))


def check(install: bool = False) -> None:
    """Returns when the machine is fit. Raises PreflightError with the remedy when it is not."""
    path = with_system_path(os.environ)["PATH"]
    missing = missing_packages(lambda program: shutil.which(program, path=path))
    if missing:
        _install(missing, allowed=install)
    _try_namespaces()


def _install(packages: tuple[str, ...], allowed: bool) -> None:
    command = f"apt-get update && apt-get install --yes --no-install-recommends {' '.join(packages)}"
    if shutil.which("apt-get") is None:
        raise PreflightError(
            f"Missing programs of the Debian packages {', '.join(packages)}. Install them, then try again."
        )
    if not allowed or os.geteuid() != 0:
        raise PreflightError(
            f"The local cluster needs {', '.join(packages)}. Type this, then try again:\n\n  sudo sh -c '{command}'\n"
        )
    print(f"Installing {', '.join(packages)}", flush=True)
    done = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PreflightError(
            f"apt-get failed (exit {done.returncode}). Type it yourself to see why:\n\n"
            f"  {command}\n\n{done.stdout[-1500:]}"
        )


def _try_namespaces() -> None:
    flags = namespace_flags(user_namespace=os.geteuid() != 0)
    trial = subprocess.run(
        ["unshare", *flags, "sh", "-c", _TRIAL],
        env=with_system_path(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if trial.returncode:
        raise PreflightError(refusal(os.geteuid() == 0, trial.stderr.strip()))


def refusal(is_root: bool, reason: str) -> str:
    """What to tell someone whose machine refuses namespaces."""
    if is_root:
        remedy = (
            "You are root, so this is most likely a container without CAP_SYS_ADMIN. Start the container with "
            "`--privileged` (or `--cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined --security-opt systempaths=unconfined`), or use a virtual machine."
        )
    else:
        remedy = (
            "Run it as root, or let ordinary users make namespaces. Type the one that your system has:\n\n"
            "  sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0   # Ubuntu 23.10 and later\n"
            "  sudo sysctl -w kernel.unprivileged_userns_clone=1               # older Debian\n"
            "  sudo sysctl -w user.max_user_namespaces=15000                   # where it is 0\n\n"
            "In a container, start it with `--privileged`."
        )
    return (
        f"This machine does not allow the namespaces that the local cluster lives in: {reason or 'refused'}\n{remedy}"
    )
