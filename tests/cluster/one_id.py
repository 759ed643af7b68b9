"""Runs a program to which every change of a file's owner succeeds and does nothing: `python -m … PROGRAM ARGUMENT …`.

A user namespace of one id knows no other owner: chown(2) fails there with EINVAL, and the kubelet then never starts a
pod with runAsUser, whose token it must give to that user. But such a user is, in this namespace, the runtime's own seen
under another number (cri/credentials.py), so that the file is its user's as it is. A filter of system calls
(seccomp(2)) answers instead of the kernel; whatever the program starts inherits it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from typing import Final

PR_SET_SECCOMP: Final = 22
SECCOMP_MODE_FILTER: Final = 2
SECCOMP_RET_ALLOW: Final = 0x7FFF0000
SECCOMP_RET_ERRNO: Final = 0x00050000
"""With error number 0 in its lower half: the call returns 0 without having been made."""

CHOWN_CALLS: Final = {
    "x86_64": (0xC000003E, (92, 93, 94, 260)),  # chown, fchown, lchown, fchownat
    "aarch64": (0xC00000B7, (54, 55)),  # fchownat, fchown
}
"""Machine → (its AUDIT_ARCH number, its system calls that change an owner), from the kernel's tables."""

_LOAD_WORD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_CALL_NUMBER: Final = 0  # offsets in struct seccomp_data
_ARCHITECTURE: Final = 4


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def chown_filter(architecture: int, calls: tuple[int, ...]) -> bytes:
    """The classic BPF program: struct sock_filter {u16 code; u8 true, false; u32 value} for each instruction."""
    return b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_LOAD_WORD, 0, 0, _ARCHITECTURE),
            (_JUMP_IF_EQUAL, 0, len(calls) + 1, architecture),  # another one's calls have other numbers: allow
            (_LOAD_WORD, 0, 0, _CALL_NUMBER),
            *((_JUMP_IF_EQUAL, len(calls) - index, 0, call) for index, call in enumerate(calls)),
            (_RETURN, 0, 0, SECCOMP_RET_ALLOW),
            (_RETURN, 0, 0, SECCOMP_RET_ERRNO),
        )
    )


def ignore_chown() -> None:
    """Filters this process and all that it starts. Raises OSError where it has no CAP_SYS_ADMIN in its namespace."""
    known = CHOWN_CALLS.get(platform.machine())
    if known is None:
        return  # the kernel's own answer then: pods with runAsUser and a token wait, and the kubelet's event says why
    code = chown_filter(*known)
    program = _Program(len(code) // 8, code)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(program), 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot filter system calls: {os.strerror(number)}")


if __name__ == "__main__":
    ignore_chown()
    os.execv(sys.argv[1], sys.argv[1:])
