"""Moves this process into a network and a view of the mounts of its own, as root or as an ordinary user.

Bridges and network namespaces made there bother nobody and end with the process, however it ends.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from functools import cache
from pathlib import Path

from tests.cluster.preflight import PreflightError, refusal, with_system_path

# From <linux/sched.h>; Python offers os.unshare only from 3.12 on.
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
# `ip netns add` keeps its names below /run, which may be another user's.
_PREPARE = "mount --make-rprivate / && mount -t tmpfs tmpfs /run && ip link set lo up"


@cache
def enter() -> None:
    """Once for each process, before it has a second thread.

    An ordinary user is root in there, by a user namespace; files keep their owner. Raises PreflightError with the
    remedy where namespaces are refused.
    """
    user, group = os.geteuid(), os.getegid()
    flags = _CLONE_NEWNS | _CLONE_NEWNET | (_CLONE_NEWUSER if user else 0)
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        raise PreflightError(refusal(user == 0, f"unshare: {os.strerror(ctypes.get_errno())}"))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    os.environ.update(with_system_path(os.environ))
    done = subprocess.run(["sh", "-c", _PREPARE], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PreflightError(refusal(user == 0, done.stderr.strip()))
